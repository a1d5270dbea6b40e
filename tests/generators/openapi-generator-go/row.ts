/** openapi-generator's client for Go, on net/http. */

import { buildGo, needsGo } from "../go/build.ts";
import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import type { Row } from "../row.ts";

export const openApiGeneratorGo: Row = {
  name: "openapi-generator-go",
  generator: openApiGenerator,
  language: "Go (net/http)",
  document: "openapi.yaml",
  needs: [needsJava, needsGo],
  files: ["driver.go", "go.mod", "../go/report.go"],
  fetch: fetchOpenApiGenerator,
  generate: (work) =>
    generateWith(work, "go", {
      packageName: "client",
      withGoMod: false,
      // Else it refuses an answer with a member that a later server added.
      disallowAdditionalPropertiesIfNotPresent: false,
    }),
  compile: buildGo,
  drive: (work) => [work.path("driver")],
};
