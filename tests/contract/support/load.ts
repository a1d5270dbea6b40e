/** Loads by request. */

import type { TestApp } from "../../harness/app.ts";
import { toUri } from "../../harness/load.ts";
import { patienceMs } from "../../harness/server-wait.ts";
import type { Operation } from "./operations.ts";

const wait = { headers: { prefer: `wait=${patienceMs / 1000}` } };

/** Begins to load a file, and waits for the end. */
export async function loadFile(app: TestApp, path: string, body: object = {}): Promise<Operation> {
  const asked = { uri: path.startsWith("s3://") ? path : toUri(path), ttl_ms: 600_000, ...body };
  return await app.ok(200, "POST", "/v1/models/default/load", asked, wait);
}

/** Loads what can be loaded. @returns the id of its region. */
export async function load(app: TestApp, path: string, body: object = {}): Promise<string> {
  const { region, problem } = await loadFile(app, path, body);
  if (region === null) throw new Error(`it was not loaded: ${JSON.stringify(problem)}`);
  return region;
}
