/** openapi-generator's client for TypeScript, on axios. */

import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import type { Row } from "../row.ts";
import { compileTypeScript } from "../typescript/compile.ts";

export const openApiGeneratorTypeScriptAxios: Row = {
  name: "openapi-generator-typescript-axios",
  generator: openApiGenerator,
  language: "TypeScript (axios)",
  document: "openapi.yaml",
  needs: [needsJava],
  files: ["driver.ts", "package.json", "package-lock.json", "../typescript/report.ts", "../../generated/tsconfig.json"],
  fetch: async (work) => {
    await fetchOpenApiGenerator(work);
    await work.run(["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"]);
  },
  generate: (work) =>
    generateWith(work, "typescript-axios", { importFileExtension: ".js", useSingleRequestParameter: true }),
  compile: compileTypeScript,
  drive: () => ["node", "driver.js"],
};
