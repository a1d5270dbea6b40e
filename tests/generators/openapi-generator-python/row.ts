/** openapi-generator's client for Python, on pydantic and urllib3. */

import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import { checkPython } from "../python/check.ts";
import { installPython } from "../python/environment.ts";
import type { Row } from "../row.ts";

export const openApiGeneratorPython: Row = {
  name: "openapi-generator-python",
  generator: openApiGenerator,
  language: "Python (pydantic, urllib3)",
  document: "openapi.yaml",
  needs: [needsJava],
  files: ["driver.py", "requirements.txt", "../python/report.py"],
  fetch: (work) => Promise.all([fetchOpenApiGenerator(work), installPython(work)]),
  // Without a package around it, so that the driver imports it from beside itself.
  generate: (work) => generateWith(work, "python", { packageName: "client", generateSourceCodeOnly: true }, "."),
  compile: async (work) => checkPython(work, ["driver.py"], await installPython(work)),
  drive: async (work) => [await installPython(work), "driver.py"],
};
