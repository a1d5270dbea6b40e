/** The types that openapi-typescript makes, with openapi-fetch for a client. */

import { join } from "node:path";
import packageJson from "../../generated/package.json" with { type: "json" };
import type { Row } from "../row.ts";
import { compileTypeScript, generatedBin } from "../typescript/compile.ts";

const { devDependencies } = packageJson;

export const openApiTypeScript: Row = {
  name: "openapi-typescript",
  generator: `openapi-typescript ${devDependencies["openapi-typescript"]}`,
  language: `TypeScript (openapi-fetch ${devDependencies["openapi-fetch"]})`,
  document: "openapi.yaml",
  needs: [],
  files: [
    "../../generated/openapi-typescript/driver.ts",
    "../typescript/report.ts",
    "../../generated/openapi-typescript/told.ts",
    "../../generated/tsconfig.json",
  ],
  generate: (work) => work.run([join(generatedBin, "openapi-typescript"), work.document, "--output", "client.ts"]),
  compile: compileTypeScript,
  drive: () => ["node", "driver.js"],
};
