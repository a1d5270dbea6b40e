/**
 * A program over what @hey-api/openapi-ts makes of `openapi.yaml`, with its client over fetch. It tells on standard output
 * what it was answered. Where a line must not compile, it says so: a client whose types are `any` fails there.
 */

import { client } from "./client/client.gen.js";
import {
  createRegion,
  deleteRegion,
  diagnose,
  evict,
  getCapabilities,
  getRegion,
  getStats,
  listEvents,
  listRegions,
} from "./client/sdk.gen.js";
import type { Dtype, FailureCode, Problem, Region } from "./client/types.gen.js";

client.setConfig({ baseUrl: process.argv[2] ?? "" });

const allocated = await createRegion({
  body: {
    name: "weights",
    tensors: [{ name: "w", dtype: "BF16", shape: [2, 3] }],
    ttl_ms: 60_000,
    labels: { job: "nightly" },
  },
});
if (allocated.data === undefined) throw new Error(`not allocated: ${allocated.error.detail}`);
const region: Region = allocated.data;
region.revision satisfies number;
// @ts-expect-error -- and so not `any`
region.revision satisfies string;
// @ts-expect-error -- there is no such dtype
"bfloat16" satisfies Dtype;

const listed = await listRegions({ query: { model: "default", state: "open", limit: 10 } });
const events = await listEvents({ query: { types: "tensord.region.", limit: 10 } });
const stats = await getStats();
const missing = await getRegion({ path: { region: "reg_missing" } });
const problem: Problem | undefined = missing.error;
// @ts-expect-error -- no failure of this version has this code
"no-such-code" satisfies FailureCode;
// A later one may have it.
"no-such-code" satisfies Problem["code"];
const capabilities = await getCapabilities();
const diagnosis = await diagnose();
const eviction = await evict({ body: { bytes: 2 ** 40, dry_run: true } });
const deleted = await deleteRegion({ path: { region: region.id } });

const told = {
  allocated: allocated.response.status,
  region,
  listed: listed.data?.items,
  next_cursor: listed.data?.next_cursor,
  events: events.data?.items.map(({ type, subject }) => ({ type, subject })),
  open: stats.data?.regions.open,
  instance: stats.data?.instance,
  missing: missing.response.status,
  problem,
  storages: capabilities.data?.storages.map(({ kind }) => kind),
  dtypes: capabilities.data?.dtypes,
  findings: diagnosis.data?.findings.map(({ status }) => status),
  evicted: eviction.data?.evicted.length,
  deletion: deleted.data,
};
console.log(JSON.stringify(told));
