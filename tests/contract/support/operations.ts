/** Operations by request. */

import type { z } from "@hono/zod-openapi";
import type * as schemas from "../../../src/routes/schemas/operation.ts";
import type { TestApp } from "../../harness/app.ts";
import { patienceMs } from "../../harness/server-wait.ts";

export type Operation = z.infer<typeof schemas.Operation>;

const wait = { headers: { prefer: `wait=${patienceMs / 1000}` } };

/** Begins a copy, and waits for its end. @param source a sealed region's id; a small one of its own if it is left out. */
export async function copyRegion(app: TestApp, body: object = {}, source?: string): Promise<Operation> {
  const id = source ?? (await createSealed(app));
  return await app.ok(200, "POST", `/v1/regions/${id}/copy`, { ttl_ms: 600_000, ...body }, wait);
}

export async function createSealed(app: TestApp, body: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const { id } = await app.create(body);
  await app.seal(id, { checksum: true });
  return id;
}

/** Begins a copy, and waits for nothing. */
export async function beginCopy(app: TestApp, source: string, body: object = {}): Promise<Operation> {
  return await app.ok(202, "POST", `/v1/regions/${source}/copy`, { ttl_ms: 600_000, ...body });
}

export async function endOf(app: TestApp, { id }: Pick<Operation, "id">): Promise<Operation> {
  return await app.ok(200, "GET", `/v1/operations/${id}`, undefined, wait);
}
