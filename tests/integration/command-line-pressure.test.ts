/** The bounds of memory as docs/operating.md tells them: quotas, what drains, pressure, and the alerts that it shows. */

import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { needsPython, root, testWith } from "../harness/instance-needs.ts";
import { openSession } from "../harness/instance-sessions.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import type { TestServer } from "../harness/server.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(endLentServers);

const MiB = 2 ** 20;

testWith(needsPython)("what drains still counts for the model, and no longer for the session", async () => {
  await using server = await lendServer();
  await using worker = new WorkerProcess();
  await server.api.call("POST", "/v1/models", { name: "small", memory_limit_bytes: 3 * MiB });
  const session = await openSession(server.api, { name: "trainer", quota_bytes: 2 * MiB });
  const request = { model: "small", byte_size: 1.5 * MiB, session: session.id };
  const first = await server.api.create(request);
  await worker.attach("r", first);
  const refused = await server.api.problem("POST", "/v1/regions", request);
  expect(refused.code).toBe("session-quota-exceeded");
  expect(refused.hint).toContain("quota_bytes");
  await server.command("rm", first.id);
  expect((await server.command("status")).stdout).toMatch(/ trainer +0 +0 B +2 MiB +in /);
  expect((await server.api.problem("POST", "/v1/regions", request)).code).toBe("model-limit-exceeded");
  await worker.detach("r");
  await server.api.untilGone(first.id);
  await server.api.create(request);
});

testWith()("pressure is told at 90 % and over below 80 %, and not at every change between", async () => {
  await using server = await lendServer();
  await server.api.call("POST", "/v1/models", { name: "small", memory_limit_bytes: 10 * MiB });
  const create = async (mebibytes: number) =>
    await server.api.create({ model: "small", byte_size: mebibytes * MiB - 4096, ttl_ms: 3_600_000 });
  const [large] = [await create(8), await create(0.5)];
  const levels = async () => {
    const { stdout } = await server.command("events", "--no-follow", "--types", "pool", "--json");
    return stdout.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line).data]));
  };
  expect(await levels()).toEqual([]);
  const last = await create(0.5);
  const limits = { pool: "host", model: "small", limit_bytes: 10 * MiB };
  expect(await levels()).toEqual([{ ...limits, level: "high", used_bytes: 9 * MiB }]);
  await server.api.delete(last.id);
  await create(0.5);
  expect(await levels()).toHaveLength(1);
  await server.api.delete(large.id);
  expect((await levels()).at(-1)).toEqual({ ...limits, level: "normal", used_bytes: MiB });
});

testWith()("each series that the alerts of docs/operating.md ask for is served", async () => {
  await using server = await lendServer();
  await server.api.call("POST", "/v1/models", { name: "small", memory_limit_bytes: MiB });
  const series = await readSeries(server);
  const rules = readAlerts();
  expect(rules.length).toBeGreaterThan(0);
  for (const { alert, expr } of rules) {
    const asked = [...expr.matchAll(/(tensord_\w+)(?:\{(\w+="\w+")\})?/g)];
    expect(asked.length, alert).toBeGreaterThan(0);
    for (const [, name, label] of asked) {
      expect(
        series.filter((one) => one.name === name && (label === undefined || one.labels.includes(label))),
        `${name} of ${alert}`,
      ).not.toEqual([]);
    }
  }
});

function readAlerts(): readonly { readonly alert: string; readonly expr: string }[] {
  const text = readFileSync(join(root, "docs/operating.md"), "utf8");
  const [, yaml = ""] = /^```yaml\n(groups:\n.*?)^```$/ms.exec(text) ?? [];
  return parse(yaml).groups.flatMap(({ rules }: { rules: unknown[] }) => rules);
}

async function readSeries(server: TestServer) {
  const response = await fetch("http://localhost/metrics", { unix: server.instance.socket });
  return [...(await response.text()).matchAll(/^(\w+)(?:\{(.*?)\})? /gm)].map(([, name, labels = ""]) => ({
    name,
    labels: labels.split(","),
  }));
}
