/** Drives the client that openapi-generator makes on axios: ../steps.ts says what each step does. */

import { isAxiosError } from "axios";
import { type CreateRegion, HostApi, type Problem, type Region, RegionsApi, SessionsApi } from "./client/api.js";
import { Configuration } from "./client/configuration.js";
import { largeBytes, step, tomorrowUrl, url, want } from "./report.js";

const configuration = new Configuration({ basePath: url });
const regions = new RegionsApi(configuration);
const sessions = new SessionsApi(configuration);

const { data: session } = await sessions.openSession({ openSession: { ttl_ms: 60_000 } });
const tensors: CreateRegion["tensors"] = [
  { name: "w", dtype: "BF16", shape: [2, 3] },
  { name: "b", dtype: "F32", shape: [3] },
];
const weights: CreateRegion = { model: "default", name: "weights", tensors, session: session.id };
let region: Region;

await step("create", async () => {
  region = (await regions.createRegion({ createRegion: weights })).data;
  want("owner.kind", region.owner.kind, "session");
  want("session", region.session, session.id);
  want("tensors", region.tensors.length, 2);
  want("w.byte_size", region.tensors[0]?.byte_size satisfies number | undefined, 12);
});
await step("checksum-null", async () => {
  want("checksum", region.checksum, null);
});
await step("get", async () => {
  const { data: detail } = await regions.getRegion({ region: region.id });
  want("id", detail.id, region.id);
  want("b.name", detail.tensors[1]?.name, "b");
});
await step("get-by-name", async () => {
  want("id", (await regions.getRegionByName({ model: "default", name: "weights" })).data.id, region.id);
});
await step("list", async () => {
  const { data: page } = await regions.listRegions({ model: "default" });
  want(
    "ids",
    page.items.map(({ id }) => id),
    [region.id],
  );
  want("next_cursor", page.next_cursor, null);
});
const change = () =>
  regions.changeRegion({ region: region.id, changeRegion: { labels: { job: "nightly" } }, ifMatch: '"1"' });
await step("change", async () => {
  const { data: changed } = await change();
  want("revision", changed.revision, 2);
  want("labels", changed.labels, { job: "nightly" });
});
await step("stale", async () => {
  await problemOf(change(), 412, "revision-mismatch");
});
await step("seal", async () => {
  region = (await regions.sealRegion({ region: region.id, sealRegion: { checksum: true } })).data;
  want("state", region.state, "sealed");
});
await step("checksum", async () => {
  want("algorithm", region.checksum?.algorithm, "xxh3-64-tree");
  want("value's length", region.checksum?.value.length, 16);
});
await step("not-found", async () => {
  await problemOf(regions.getRegion({ region: "reg_missingmissingmissingmissi" }), 404, "region-not-found");
});
await step("name-taken", async () => {
  await problemOf(regions.createRegion({ createRegion: weights }), 409, "name-taken");
});
await step("invalid", async () => {
  const problem = await problemOf(
    regions.createRegion({ createRegion: { ...weights, labels: { "": "x" } } }),
    422,
    "validation-failed",
  );
  return problem.issues?.[0]?.path;
});
await step("full", async () => {
  const problem = await problemOf(
    regions.createRegion({ createRegion: { byte_size: 2 ** 50, ttl_ms: 60_000 } }),
    507,
    "pool-full",
  );
  return [problem.code, problem.requested_bytes, problem.available_bytes].join(" ");
});
if (largeBytes > 0)
  await step("large", async () => {
    const { data: large } = await regions.createRegion({ createRegion: { byte_size: largeBytes, ttl_ms: 60_000 } });
    await regions.deleteRegion({ region: large.id });
    return [large.tensors[0]?.byte_size, large.storage.byte_size].join(" ");
  });
await step("persist", async () => {
  const { data: kept } = await regions.createRegion({ createRegion: { name: "kept", persist: true, byte_size: 64 } });
  want("owner.kind", kept.owner.kind, "persist");
  want("state", (await regions.deleteRegion({ region: kept.id })).data.state, "deleted");
});
await step("epoch", async () => String((await new HostApi(configuration).getStats()).data.epoch));
await step("tomorrow", async () => {
  const tomorrows = new RegionsApi(new Configuration({ basePath: tomorrowUrl }));
  const { data: later } = await tomorrows.createRegion({ createRegion: { tensors, ttl_ms: 60_000 } });
  const problem = await problemOf(
    tomorrows.getRegion({ region: "reg_missingmissingmissingmissi" }),
    404,
    "region-not-found-of-tomorrow",
  );
  return [later.owner.kind, later.storage.kind, later.tensors[0]?.dtype, problem.code].join(" ");
});
await step("end", async () => {
  want("regions", (await sessions.endSession({ session: session.id })).data.regions, 1);
});

/** The Problem of a refusal. axios rejects, and leaves the type of what came to us. */
async function problemOf(refused: Promise<unknown>, status: number, code: string): Promise<Problem> {
  const error = await refused.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isAxiosError<Problem>(error)) throw new Error(`want ${status}, got ${error}`);
  const { response } = error;
  if (response === undefined) throw error;
  want("status", response.status, status);
  want("status in the Problem", response.data.status, status);
  want("code", response.data.code, code);
  return response.data;
}
