/** Drives the client that @hey-api/openapi-ts makes, over fetch: ../steps.ts says what each step does. */

import { createClient } from "./client/client/index.js";
import {
  changeRegion,
  createRegion,
  deleteRegion,
  endSession,
  getRegion,
  getRegionByName,
  getStats,
  listRegions,
  openSession,
  sealRegion,
} from "./client/sdk.gen.js";
import type { CreateRegion, Problem, Region } from "./client/types.gen.js";
import { largeBytes, step, tomorrowUrl, url, want } from "./report.js";

const client = createClient({ baseUrl: url });

interface Answer<Data> {
  readonly data?: Data | undefined;
  readonly error?: Problem | undefined;
  readonly response?: Response | undefined;
}

const session = read(await openSession({ client, body: { ttl_ms: 60_000 } }));
const tensors: CreateRegion["tensors"] = [
  { name: "w", dtype: "BF16", shape: [2, 3] },
  { name: "b", dtype: "F32", shape: [3] },
];
const weights: CreateRegion = { name: "weights", tensors, session: session.id };
let region: Region;

const create = async (body: CreateRegion) => read(await createRegion({ client, body }));
const remove = async ({ id }: Region) => read(await deleteRegion({ client, path: { region: id } }));

await step("create", async () => {
  region = await create(weights);
  want("owner.kind", region.owner.kind, "session");
  want("session", region.session, session.id);
  want("tensors", region.tensors.length, 2);
  want("w.byte_size", region.tensors[0]?.byte_size satisfies number | undefined, 12);
});
await step("checksum-null", async () => {
  want("checksum", region.checksum, null);
});
await step("get", async () => {
  const detail = read(await getRegion({ client, path: { region: region.id } }));
  want("id", detail.id, region.id);
  want("b.name", detail.tensors[1]?.name, "b");
});
await step("get-by-name", async () => {
  const detail = read(await getRegionByName({ client, path: { model: "default", name: "weights" } }));
  want("id", detail.id, region.id);
});
await step("list", async () => {
  const page = read(await listRegions({ client, query: { model: "default" } }));
  const ids = page.items.map(({ id }) => id);
  want("ids", ids, [region.id]);
  want("next_cursor", page.next_cursor, null);
});
const change = () =>
  changeRegion({
    client,
    path: { region: region.id },
    headers: { "if-match": '"1"' },
    body: { labels: { job: "nightly" } },
  });
await step("change", async () => {
  const changed = read(await change());
  want("revision", changed.revision, 2);
  want("labels", changed.labels, { job: "nightly" });
});
await step("stale", async () => {
  problemOf(await change(), 412, "revision-mismatch");
});
await step("seal", async () => {
  region = read(await sealRegion({ client, path: { region: region.id }, body: { checksum: true } }));
  want("state", region.state, "sealed");
});
await step("checksum", async () => {
  want("algorithm", region.checksum?.algorithm, "xxh3-64-tree");
  want("value's length", region.checksum?.value.length, 16);
});
await step("not-found", async () => {
  problemOf(await getRegion({ client, path: { region: "reg_missing" } }), 404, "region-not-found");
});
await step("name-taken", async () => {
  problemOf(await createRegion({ client, body: weights }), 409, "name-taken");
});
await step("invalid", async () => {
  const answer = await createRegion({ client, body: { ...weights, labels: { "": "x" } } });
  return problemOf(answer, 422, "validation-failed").issues?.[0]?.path;
});
await step("full", async () => {
  const answer = await createRegion({ client, body: { byte_size: 2 ** 50, ttl_ms: 60_000 } });
  const problem = problemOf(answer, 507, "pool-full");
  return [problem.code, problem.requested_bytes, problem.available_bytes].join(" ");
});
if (largeBytes > 0)
  await step("large", async () => {
    const large = await create({ byte_size: largeBytes, ttl_ms: 60_000 });
    await remove(large);
    return [large.tensors[0]?.byte_size, large.storage.byte_size].join(" ");
  });
await step("persist", async () => {
  const kept = await create({ name: "kept", persist: true, byte_size: 64 });
  want("owner.kind", kept.owner.kind, "persist");
  want("state", (await remove(kept)).state, "deleted");
});
await step("epoch", async () => String(read(await getStats({ client })).epoch satisfies number));
await step("tomorrow", async () => {
  const tomorrow = createClient({ baseUrl: tomorrowUrl });
  const later = read(await createRegion({ client: tomorrow, body: { tensors, ttl_ms: 60_000 } }));
  const missing = await getRegion({ client: tomorrow, path: { region: "reg_missing" } });
  const { code } = problemOf(missing, 404, "region-not-found-of-tomorrow");
  return [later.owner.kind, later.storage.kind, later.tensors[0]?.dtype, code].join(" ");
});
await step("end", async () => {
  want("regions", read(await endSession({ client, path: { session: session.id } })).regions, 1);
});

function read<Data>({ data, error, response }: Answer<Data>): Data {
  if (data === undefined) throw new Error(`the answer is ${response?.status}: ${JSON.stringify(error)}`);
  return data;
}

function problemOf({ error, response }: Answer<unknown>, status: number, code: string): Problem {
  want("status", response?.status, status);
  if (error === undefined) throw new Error("no Problem was read");
  want("status in the Problem", error.status, status);
  want("code", error.code, code);
  return error;
}
