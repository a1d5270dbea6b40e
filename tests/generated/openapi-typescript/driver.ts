/** Drives the client that openapi-typescript and openapi-fetch make: ../steps.ts says what each step does. */

import createClient from "openapi-fetch";
import type { components, paths } from "./client.js";
import { largeBytes, step, tomorrowUrl, url, want } from "./report.js";

type CreateRegion = components["schemas"]["CreateRegion"];
type Problem = components["schemas"]["Problem"];
type Region = components["schemas"]["Region"];

// Answers are JSON: events come as a page, and not as the stream that the same route has.
const connect = (baseUrl: string) => createClient<paths, `application/${string}`>({ baseUrl });
const client = connect(url);

interface Answer<Data> {
  readonly data?: Data | undefined;
  readonly error?: Problem | undefined;
  readonly response: Response;
}

const session = read(await client.POST("/v1/sessions", { body: { ttl_ms: 60_000 } }));
const tensors: CreateRegion["tensors"] = [
  { name: "w", dtype: "BF16", shape: [2, 3] },
  { name: "b", dtype: "F32", shape: [3] },
];
const weights: CreateRegion = { name: "weights", tensors, session: session.id };
let region: Region;

const post = (body: CreateRegion) => client.POST("/v1/regions", { body });
const get = (of: typeof client, id: string) => of.GET("/v1/regions/{region}", { params: { path: { region: id } } });
const remove = async ({ id }: Region) =>
  read(await client.DELETE("/v1/regions/{region}", { params: { path: { region: id } } }));

await step("create", async () => {
  region = read(await post(weights));
  want("owner.kind", region.owner.kind, "session");
  want("session", region.session, session.id);
  want("tensors", region.tensors.length, 2);
  want("w.byte_size", region.tensors[0]?.byte_size satisfies number | undefined, 12);
});
await step("checksum-null", async () => {
  want("checksum", region.checksum, null);
});
await step("get", async () => {
  const detail = read(await get(client, region.id));
  want("id", detail.id, region.id);
  want("b.name", detail.tensors[1]?.name, "b");
});
await step("get-by-name", async () => {
  const path = { model: "default", name: "weights" };
  want("id", read(await client.GET("/v1/models/{model}/regions/{name}", { params: { path } })).id, region.id);
});
await step("list", async () => {
  const page = read(await client.GET("/v1/regions", { params: { query: { model: "default" } } }));
  const ids = page.items.map(({ id }) => id);
  want("ids", ids, [region.id]);
  want("next_cursor", page.next_cursor, null);
});
const change = () =>
  client.PATCH("/v1/regions/{region}", {
    params: { path: { region: region.id }, header: { "if-match": '"1"' } },
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
  const params = { path: { region: region.id } };
  region = read(await client.POST("/v1/regions/{region}/seal", { params, body: { checksum: true } }));
  want("state", region.state, "sealed");
});
await step("checksum", async () => {
  want("algorithm", region.checksum?.algorithm, "xxh3-64-tree");
  want("value's length", region.checksum?.value.length, 16);
});
await step("not-found", async () => {
  problemOf(await get(client, "reg_missing"), 404, "region-not-found");
});
await step("name-taken", async () => {
  problemOf(await post(weights), 409, "name-taken");
});
await step("invalid", async () => {
  const answer = await post({ ...weights, labels: { "": "x" } });
  return problemOf(answer, 422, "validation-failed").issues?.[0]?.path;
});
await step("full", async () => {
  const problem = problemOf(await post({ byte_size: 2 ** 50, ttl_ms: 60_000 }), 507, "pool-full");
  return [problem.code, problem.requested_bytes, problem.available_bytes].join(" ");
});
if (largeBytes > 0)
  await step("large", async () => {
    const large = read(await post({ byte_size: largeBytes, ttl_ms: 60_000 }));
    await remove(large);
    return [large.tensors[0]?.byte_size, large.storage.byte_size].join(" ");
  });
await step("persist", async () => {
  const kept = read(await post({ name: "kept", persist: true, byte_size: 64 }));
  want("owner.kind", kept.owner.kind, "persist");
  want("state", (await remove(kept)).state, "deleted");
});
await step("epoch", async () => String(read(await client.GET("/v1/stats")).epoch satisfies number));
await step("tomorrow", async () => {
  const tomorrow = connect(tomorrowUrl);
  const later = read(await tomorrow.POST("/v1/regions", { body: { tensors, ttl_ms: 60_000 } }));
  const { code } = problemOf(await get(tomorrow, "reg_missing"), 404, "region-not-found-of-tomorrow");
  return [later.owner.kind, later.storage.kind, later.tensors[0]?.dtype, code].join(" ");
});
await step("end", async () => {
  const path = { session: session.id };
  want("regions", read(await client.DELETE("/v1/sessions/{session}", { params: { path } })).regions, 1);
});

function read<Data>({ data, error, response }: Answer<Data>): Data {
  if (data === undefined) throw new Error(`the answer is ${response.status}: ${JSON.stringify(error)}`);
  return data;
}

function problemOf({ error, response }: Answer<unknown>, status: number, code: string): Problem {
  want("status", response.status, status);
  if (error === undefined) throw new Error("no Problem was read");
  want("status in the Problem", error.status, status);
  want("code", error.code, code);
  return error;
}
