/**
 * Writes `openapi.yaml` from the routes, and `openapi-3.0.yaml` from that (`npm run generate`). A test compares the committed
 * files with the same text.
 */

import { writeFileSync } from "node:fs";
import packageJson from "../package.json" with { type: "json" };
import { createApp } from "../src/routes/app.ts";
import { toDocument } from "../src/routes/document.ts";
import type { Services } from "../src/routes/environment.ts";
import { toOpenApi30 } from "../src/routes/openapi-3-0.ts";
import { toYaml } from "./yaml.ts";

export const openApiPath = new URL("../openapi.yaml", import.meta.url).pathname;
export const openApi30Path = new URL("../openapi-3.0.yaml", import.meta.url).pathname;

/** The document needs the routes only, so the app gets services that nobody calls. */
export function generated() {
  const { version } = packageJson;
  const services = { version, traffic: { requests: 0, receivedBytes: 0, sentBytes: 0 } } as unknown as Services;
  return toDocument(createApp(services), version);
}

export function toOpenApiYaml(): string {
  return toYaml("# Generated from src/routes by `npm run generate`; a test compares it with the code.\n", generated());
}

export function toOpenApi30Yaml(): string {
  const head = "# Generated from openapi.yaml by `npm run generate`, for generators that read no 3.1.\n";
  return toYaml(head, toOpenApi30(generated()));
}

if (import.meta.main) {
  writeFileSync(openApiPath, toOpenApiYaml());
  writeFileSync(openApi30Path, toOpenApi30Yaml());
}
