/**
 * A program over what openapi-typescript and openapi-fetch make of `openapi.yaml`. It tells on standard output what it was
 * answered. Where a line must not compile, it says so: a client whose types are `any` fails there.
 */

import createClient from "openapi-fetch";
import type { components, paths } from "./client.js";

// Answers are JSON: events come as a page, and not as the stream that the same route has.
const client = createClient<paths, `application/${string}`>({ baseUrl: process.argv[2] ?? "" });

const allocated = await client.POST("/v1/regions", {
  body: {
    name: "weights",
    tensors: [{ name: "w", dtype: "BF16", shape: [2, 3] }],
    ttl_ms: 60_000,
    labels: { job: "nightly" },
  },
});
if (allocated.data === undefined) throw new Error(`not allocated: ${allocated.error.detail}`);
const region: components["schemas"]["Region"] = allocated.data;
region.revision satisfies number;
// @ts-expect-error -- and so not `any`
region.revision satisfies string;
// @ts-expect-error -- there is no such dtype
"bfloat16" satisfies components["schemas"]["Dtype"];

const listed = await client.GET("/v1/regions", { params: { query: { model: "default", state: "open", limit: 10 } } });
const events = await client.GET("/v1/events", { params: { query: { types: "tensord.region.", limit: 10 } } });
const stats = await client.GET("/v1/stats");
const missing = await client.GET("/v1/regions/{region}", { params: { path: { region: "reg_missing" } } });
const problem: components["schemas"]["Problem"] | undefined = missing.error;
// @ts-expect-error -- no failure of this version has this code
"no-such-code" satisfies components["schemas"]["FailureCode"];
// A later one may have it.
"no-such-code" satisfies components["schemas"]["Problem"]["code"];
const capabilities = await client.GET("/v1/capabilities");
const diagnosis = await client.GET("/v1/doctor");
const eviction = await client.POST("/v1/evict", { body: { bytes: 2 ** 40, dry_run: true } });
const deleted = await client.DELETE("/v1/regions/{region}", { params: { path: { region: region.id } } });

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
