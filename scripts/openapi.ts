/** Writes `openapi.yaml` from the routes (`npm run generate`). A test compares the committed file with the same text. */

import { writeFileSync } from "node:fs";
import packageJson from "../package.json" with { type: "json" };
import { createApp } from "../src/routes/app.ts";
import { toDocument } from "../src/routes/document.ts";
import type { Services } from "../src/routes/environment.ts";
import { toYaml } from "./yaml.ts";

export const openApiPath = new URL("../openapi.yaml", import.meta.url).pathname;

/** The document needs the routes only, so the app gets services that nobody calls. */
export function toOpenApiYaml(): string {
  const { version } = packageJson;
  const services = { version, traffic: { requests: 0, receivedBytes: 0, sentBytes: 0 } } as unknown as Services;
  const head = "# Generated from src/routes by `npm run generate`; a test compares it with the code.\n";
  return toYaml(head, toDocument(createApp(services), version));
}

if (import.meta.main) writeFileSync(openApiPath, toOpenApiYaml());
