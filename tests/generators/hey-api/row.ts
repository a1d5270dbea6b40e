/** What @hey-api/openapi-ts makes, over fetch. */

import { join } from "node:path";
import packageJson from "../../generated/package.json" with { type: "json" };
import type { Row } from "../row.ts";
import { compileTypeScript, generatedBin } from "../typescript/compile.ts";

export const heyApi: Row = {
  name: "hey-api",
  generator: `@hey-api/openapi-ts ${packageJson.devDependencies["@hey-api/openapi-ts"]}`,
  language: "TypeScript (fetch)",
  document: "openapi.yaml",
  needs: [],
  files: [
    "../../generated/hey-api/driver.ts",
    "../typescript/report.ts",
    "../../generated/hey-api/told.ts",
    "../../generated/tsconfig.json",
  ],
  generate: (work) =>
    work.run([join(generatedBin, "openapi-ts"), "--input", work.document, "--output", "client", "--no-log-file"]),
  compile: compileTypeScript,
  drive: () => ["node", "driver.js"],
};
