/** openapi-generator's client for C#, on its generic host: it is parsed, and goes no further. */

import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import { installPython } from "../python/environment.ts";
import type { Row } from "../row.ts";

export const openApiGeneratorCSharp: Row = {
  name: "openapi-generator-csharp",
  generator: openApiGenerator,
  language: "C# (generic host)",
  document: "openapi.yaml",
  needs: [needsJava],
  files: ["parse.py", "requirements.txt"],
  fetch: (work) => Promise.all([fetchOpenApiGenerator(work), installPython(work)]),
  generate: (work) => generateWith(work, "csharp", { packageName: "Tensord" }),
  compile: async (work) => work.run([await installPython(work), "parse.py", work.document, "client/src/Tensord"]),
  drive:
    "there is no C# compiler here: a parser has read it, no two names are one, and each integer of 64 bits is a long",
};
