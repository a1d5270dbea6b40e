/** Metrics: bounded labels, what a request counts as, and a table in the docs that has exactly what is served. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import Histogram from "prom-client/lib/histogram.js";
import Registry from "prom-client/lib/registry.js";
import { operatingPath } from "../../scripts/settings.ts";
import { Pools } from "../../src/memory/state/pool.ts";
import { Metrics } from "../../src/server/metrics.ts";
import { toMetricsText } from "../../src/server/metrics-format.ts";
import { HttpMetrics } from "../../src/server/metrics-http.ts";
import { sumModels } from "../../src/server/metrics-store.ts";
import { TestApp } from "../harness/app.ts";

function model(name: string, usedBytes: number, limitBytes?: number) {
  const pools = Pools.of(limitBytes === undefined ? [] : [{ pool: "host", limitBytes }]);
  pools.get("host").usedBytes = usedBytes;
  return { name, usedBytes, pools };
}

describe("models", () => {
  test("up to a bound have their own series, the others one together without a limit", () => {
    const models = Array.from({ length: 250 }, (_, index) => model(`m${index}`, index, 1000));
    const sums = sumModels(models);
    expect(sums).toHaveLength(101);
    expect(sums[99]).toEqual({ model: "m99", pool: "host", usedBytes: 99, limitBytes: 1000 });
    expect(sums.map(({ model }) => model)).not.toContain("m100");
    const rest = models.slice(100).reduce((sum, { usedBytes }) => sum + usedBytes, 0);
    expect(sums.at(-1)).toEqual({ model: "_other", pool: "host", usedBytes: rest, limitBytes: null });
  });

  test("are all shown while they are few, and one that is called like the rest is counted with it", () => {
    expect(sumModels([model("default", 1)]).map(({ model }) => model)).toEqual(["default"]);
    expect(sumModels([model("_other", 5, 10), model("a", 1)])).toEqual([
      { model: "a", pool: "host", usedBytes: 1, limitBytes: null },
      { model: "_other", pool: "host", usedBytes: 5, limitBytes: null },
    ]);
  });
});

test("a request is counted by its method and the class of its status, whatever the client calls its method", async () => {
  const registry = new Registry();
  const http = new HttpMetrics(registry);
  http.observe("createRegion", "POST", 201, 0.002);
  http.observe("createRegion", "POST", 507, 0.003);
  http.observe("none", "BREW", 405, 0.001);
  const text = await registry.metrics();
  expect(text).toContain('tensord_http_requests_total{method="POST",status="2xx"} 1');
  expect(text).toContain('tensord_http_requests_total{method="POST",status="5xx"} 1');
  expect(text).toContain('tensord_http_requests_total{method="other",status="4xx"} 1');
  expect(text).toContain('tensord_http_request_duration_seconds_count{operation="createRegion"} 2');
  expect(text).toContain('tensord_http_request_duration_seconds_sum{operation="createRegion"} 0.005');
  expect(text).not.toContain("BREW");
});

test("durations are told as the library's own histogram tells them, in both formats", async () => {
  const [registry, other] = [new Registry(), new Registry()];
  const http = new HttpMetrics(registry);
  const name = "tensord_http_request_duration_seconds";
  const help = "Time from a request to its answer, by operationId.";
  const buckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30];
  const expected = new Histogram({ name, help, labelNames: ["operation"], buckets, registers: [other] });
  for (const seconds of [0, 0.0001, 0.00010001, 0.0004, 0.5, 0.75, 29, 30, 31, 1000]) {
    for (const operation of ["createRegion", "none"]) {
      http.observe(operation, "GET", 200, seconds);
      expected.observe({ operation }, seconds);
    }
  }
  for (const accept of [null, "application/openmetrics-text"]) {
    const own = (await toMetricsText(registry, accept)).text;
    const theirs = (await toMetricsText(other, accept)).text;
    const lines = (text: string) => text.split("\n").filter((line) => line.includes(name));
    expect(lines(own)).toEqual(lines(theirs));
    expect(lines(own)).toHaveLength(2 + 2 * (buckets.length + 3));
  }
});

test("two servers in one process have metrics of their own", async () => {
  const [one, two] = [new Metrics("1.0.0"), new Metrics("2.0.0")];
  one.http.observe("none", "GET", 200, 1);
  expect((await one.render(null)).text).toContain('tensord_build_info{version="1.0.0"} 1');
  const { text } = await two.render(null);
  expect(text).toContain('tensord_build_info{version="2.0.0"} 1');
  expect(text).not.toContain('method="GET"');
});

test("docs/operating.md has every metric that is served, with its kind and its meaning, and no other", async () => {
  const app = await TestApp.open();
  const metrics = new Metrics("0.0.0");
  metrics.watch(app.store);
  const { text } = await metrics.render(null);
  await app.close();
  const rows = [...text.matchAll(/^# HELP (\S+) (.+)\n# TYPE \S+ (\w+)$/gm)].map(
    ([, name, help, kind]) => `| \`${name}\` | ${kind} | ${help} |`,
  );
  expect(rows.length).toBeGreaterThan(15);
  const written = readFileSync(operatingPath, "utf8").matchAll(/^\| `tensord_\w+` \| .+$/gm);
  expect([...written].map(([row]) => row)).toEqual(rows);
  for (const row of rows) expect(row).toMatch(/^\| `tensord_[a-z_]+` \| (gauge|counter|histogram) \| [A-Z].+\. \|$/);
});
