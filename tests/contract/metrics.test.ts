/** `/metrics`: the numbers of the books, in Prometheus' text format, or in OpenMetrics for whoever asks for it. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { operatingPath } from "../../scripts/settings.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { fakeDevice } from "../conformance/support/fake-device.ts";
import { type TestApp, toCharge, withApp } from "../harness/app.ts";
import { needsStockPython, stockPython, testWith } from "../harness/instance-needs.ts";
import { runScript } from "../harness/worker.ts";
import { lease } from "./support/lease.ts";
import { makePool, mapAt, pagesBytes, poolSize, withPools } from "./support/pools.ts";

const openMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** A metric with all its samples' names. */
interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly string[];
}

/** Every sample by its name and labels, as they are written. */
async function scrape(app: TestApp): Promise<ReadonlyMap<string, number>> {
  const text = await app.ok<string>(200, "GET", "/metrics");
  const samples = [...text.matchAll(/^(tensord_\w+(?:\{[^}]*\})?) (\S+)$/gm)];
  return new Map(samples.map(([, name = "", value]) => [name, Number(value)]));
}

describe("metrics", () => {
  test(
    "are in the text format, each with its help and its type",
    withApp(async (app) => {
      const { headers, body } = await app.request("GET", "/metrics");
      expect(headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
      for (const line of (body as string).split("\n").filter(Boolean)) {
        expect(line).toMatch(
          /^(# (HELP|TYPE) tensord_|tensord_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[\d.e+-]+$)/,
        );
      }
    }),
  );

  test(
    "agree with the books",
    withApp(async (app) => {
      await app.register("llama", 1_000_000);
      await app.seal((await app.create({ model: "llama", byte_size: 10_000 })).id);
      const leased = await app.create({ byte_size: 20_000 });
      using _ = lease(leased.storage.path);
      await app.remove(leased.id);
      await app.create();
      const stats = await app.stats();
      const samples = await scrape(app);
      for (const [state, count] of Object.entries(stats.regions)) {
        expect(samples.get(`tensord_regions{state="${state}"}`)).toBe(count);
      }
      for (const kind of ["limit", "used", "draining"] as const) {
        expect(samples.get(`tensord_memory_bytes{pool="host",kind="${kind}"}`)).toBe(
          hostOf(stats)[`${kind}_bytes`] ?? -1,
        );
      }
      expect(samples.get("tensord_journal_bytes")).toBe(stats.journal_bytes);
      for (const kind of ["available", "reserve", "unaccounted"])
        expect(samples.has(`tensord_memory_bytes{pool="host",kind="${kind}"}`)).toBeTrue();
      expect(stats.regions).toMatchObject({ sealed: 1, open: 1, draining: 1 });
      expect(samples.get("tensord_models")).toBe(2);
      expect(samples.get('tensord_model_used_bytes{model="llama",pool="host"}')).toBe(toCharge(10_000 + 4096));
      expect(samples.get('tensord_model_limit_bytes{model="llama",pool="host"}')).toBe(1_000_000);
      expect(samples.has('tensord_model_limit_bytes{model="default",pool="host"}')).toBeFalse();
      expect(samples.get("tensord_inodes_free")).toBeGreaterThan(0);
      expect(samples.get("tensord_events_last_sequence")).toBe(app.store.events.last);
      expect(samples.get("tensord_events_kept")).toBe(app.store.events.size);
      expect(app.store.events.size).toBeGreaterThan(3);
      expect(samples.get("tensord_event_subscribers")).toBe(0);
    }),
  );

  test(
    "forget a model that is gone",
    withApp(async (app) => {
      await app.register("llama", 1_000_000);
      expect((await scrape(app)).has('tensord_model_used_bytes{model="llama",pool="host"}')).toBeTrue();
      await app.ok(200, "DELETE", "/v1/models/llama");
      expect((await scrape(app)).has('tensord_model_used_bytes{model="llama",pool="host"}')).toBeFalse();
    }),
  );

  test(
    "tell of the process",
    withApp(async (app) => {
      const first = await scrape(app);
      const now = Date.now() / 1000;
      const started = first.get("tensord_process_start_time_seconds") ?? 0;
      expect(started).toBeLessThan(now);
      expect(started).toBeGreaterThan(now - 24 * 3600);
      expect(first.get("tensord_process_resident_memory_bytes")).toBeGreaterThan(2 ** 20);
      expect(first.get("tensord_process_open_fds")).toBeGreaterThan(3);
      expect(first.get("tensord_event_loop_lag_seconds")).toBeGreaterThan(0);
      const second = await scrape(app);
      const cpu = (samples: ReadonlyMap<string, number>) => samples.get("tensord_process_cpu_seconds_total") ?? 0;
      expect(cpu(first)).toBeGreaterThan(0);
      expect(cpu(second)).toBeGreaterThanOrEqual(cpu(first));
    }),
  );

  test(
    "that are asked for at once agree",
    withApp(async (app) => {
      await app.register("llama", 1_000_000);
      const all = await Promise.all(Array.from({ length: 20 }, () => scrape(app)));
      for (const samples of all)
        expect(samples.get('tensord_model_limit_bytes{model="llama",pool="host"}')).toBe(1_000_000);
    }),
  );

  /** What the request asks for, and whether it gets OpenMetrics for that. */
  const asked = [
    // Prometheus 2 and 3, as they ask.
    ["application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true],
    ["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3,*/*;q=0.2", true],
    ["application/openmetrics-text", true],
    ["text/plain, Application/OpenMetrics-Text", true],
    ["text/plain, application/openmetrics-text;q=0.9", false],
    ["*/*, application/openmetrics-text;q=0.9", false],
    ["application/openmetrics-text;q=0", false],
    ["application/openmetrics-text;version=2.0.0", false],
    ["application/openmetrics-textual", false],
    ["text/plain;version=0.0.4", false],
    ["*/*", false],
    ["", false],
  ] as const;
  test(
    "are OpenMetrics for who asks for them by name and likes nothing better",
    withApp(async (app) => {
      for (const [accept, isOpenMetrics] of asked) {
        const { headers, body } = await app.request("GET", "/metrics", undefined, { headers: { accept } });
        const type = isOpenMetrics ? openMetrics : "text/plain; version=0.0.4; charset=utf-8";
        expect([accept, headers.get("content-type"), headers.get("vary")]).toEqual([accept, type, "Accept"]);
        expect([accept, (body as string).endsWith("\n# EOF\n")]).toEqual([accept, isOpenMetrics]);
      }
    }),
  );

  test(
    "have the same series in both formats, and asking for one leaves the other as it was",
    withApp(async (app) => {
      await app.request("GET", "/v1/stats");
      const toSeries = async (accept: string) => {
        const { body } = await app.request("GET", "/metrics", undefined, { headers: { accept } });
        return [...(body as string).matchAll(/^(\w+(?:\{[^}]*\})?) \S+$/gm)].map(([, series]) => series);
      };
      await toSeries(openMetrics);
      const series = await toSeries("text/plain");
      expect(await toSeries(openMetrics)).toEqual(series);
      expect(series).toContain('tensord_http_requests_total{method="GET",status="2xx"}');
      expect(series).toContain('tensord_http_request_duration_seconds_bucket{le="1.0",operation="getStats"}');
    }),
  );

  test(
    "say what each elastic pool has, and how often its pages came and went",
    withApp(async (app) => {
      expect((await scrape(app)).get('tensord_vmm_changes_total{kind="mapped"}')).toBe(0);
      await makePool(app);
      await mapAt(app, 0, 2 * pagesBytes);
      const samples = await scrape(app);
      const of = (kind: string) =>
        samples.get(`tensord_vmm_bytes{model="default",device="${fakeDevice.uuid}",kind="${kind}"}`);
      expect(["virtual", "physical", "mapped", "unreleased", "stuck"].map(of)).toEqual([
        ...[poolSize, 2 * pagesBytes, 2 * pagesBytes],
        ...[0, 0],
      ]);
      expect(samples.get('tensord_vmm_changes_total{kind="mapped"}')).toBe(1);
    }, withPools),
  );

  testWith(needsStockPython)(
    "as OpenMetrics are taken by the parser that Prometheus has for Python, name by name as the documents have them",
    withApp(async (app) => {
      await app.register("llama", 1_000_000);
      await app.request("GET", "/v1/stats");
      await makePool(app);
      const { body } = await app.request("GET", "/metrics", undefined, { headers: { accept: openMetrics } });
      const families = await runScript<Family[]>(stockPython, "openmetrics_read.py", body as string);
      const documented = readFileSync(operatingPath, "utf8").matchAll(/^\| `(tensord_\w+)` \| (\w+) \| (.+) \|$/gm);
      expect(families.map(({ name, type, help }) => [type === "counter" ? `${name}_total` : name, type, help])).toEqual(
        [...documented].map(([, name = "", type = "", help = ""]) => [name, type, help]),
      );
      expect(families.flatMap(({ samples }) => samples)).toContain("tensord_http_requests_total");
      expect(families.filter(({ samples }) => samples.length === 0).map(({ name }) => name)).toEqual([]);
      const cut = runScript(stockPython, "openmetrics_read.py", (body as string).replace("# EOF\n", ""));
      await expect(cut).rejects.toThrow("Missing # EOF at end");
    }, withPools),
  );
});
