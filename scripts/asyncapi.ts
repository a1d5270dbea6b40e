/** Writes `asyncapi.yaml` (`npm run generate`). A test compares the committed file with the same text. */

import { writeFileSync } from "node:fs";
import { type OpenApi, toAsyncApi } from "../src/routes/asyncapi.ts";
import { generated } from "./openapi.ts";
import { toYaml } from "./yaml.ts";

export const asyncApiPath = new URL("../asyncapi.yaml", import.meta.url).pathname;

export function toAsyncApiYaml(): string {
  const head = "# Generated from src/routes by `npm run generate`; a test compares it with the code.\n";
  return toYaml(head, toAsyncApi(generated() as unknown as OpenApi, "./openapi.yaml"));
}

if (import.meta.main) writeFileSync(asyncApiPath, toAsyncApiYaml());
