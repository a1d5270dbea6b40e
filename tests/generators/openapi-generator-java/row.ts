/** openapi-generator's client for Java, on `java.net.http` and Jackson. */

import { driveJvm, fetchLibraries, needsMaven } from "../jvm/libraries.ts";
import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import type { Need, Row } from "../row.ts";

const needsCompiler: Need = { command: "javac", version: ["-version"], want: "a JDK, 17 or newer" };

export const openApiGeneratorJava: Row = {
  name: "openapi-generator-java",
  generator: openApiGenerator,
  language: "Java (java.net.http, Jackson)",
  document: "openapi.yaml",
  needs: [needsJava, needsCompiler, needsMaven],
  files: ["Driver.java", "pom.xml"],
  fetch: async (work) => {
    await fetchOpenApiGenerator(work);
    await fetchLibraries(work);
  },
  generate: (work) =>
    generateWith(work, "java", {
      library: "native",
      useSingleRequestParameter: true,
      // Without it what is left out of a request is sent as [], and to ask for no tensors is not to ask for none.
      containerDefaultToNull: true,
      invokerPackage: "client",
      apiPackage: "client.api",
      modelPackage: "client.model",
    }),
  compile: (work) => {
    // All of it, and not only what the driver uses.
    const sources = new Bun.Glob("client/src/main/java/**/*.java").scanSync(work.folder);
    return work.run(["javac", "-cp", "libraries/*", "-d", "classes", "Driver.java", ...sources]);
  },
  drive: driveJvm("Driver"),
};
