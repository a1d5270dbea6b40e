/** Probes of a real server: before it is ready, while it stops, and by the command line. */

import { afterAll, expect } from "bun:test";
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProblemBody } from "../../src/routes/schemas/problem.ts";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, TestServer } from "../harness/server.ts";
import { until, within } from "../harness/server-wait.ts";

const MiB = 2 ** 20;

afterAll(assertNothingLeft);

/** A port that nobody listened on a moment ago. */
async function findPort(): Promise<number> {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const { port = 0 } = server;
  await server.stop(true);
  return port;
}

interface Probe {
  readonly status: number;
  readonly code: ProblemBody["code"] | undefined;
}

/** What the probe says, or undefined if nobody listens. */
async function probe(url: string): Promise<Probe | undefined> {
  try {
    const response = await fetch(url);
    const { code } = (await response.json()) as Partial<ProblemBody>;
    return { status: response.status, code };
  } catch {
    return undefined;
  }
}

testWith()("probes are answered before recovery begins: live, not ready, and then ready", async () => {
  const health = `http://127.0.0.1:${await findPort()}`;
  await using server = new TestServer({ env: { TENSORD_HEALTH_ADDRESS: health.slice("http://".length) } });
  const { directory, new: folder } = server.instance;
  mkdirSync(directory, { mode: 0o750 });
  mkdirSync(folder, { mode: 0o700 });
  // What earlier servers were making when they died: large enough to be removed one by one in a Worker.
  for (let index = 0; index < 20_000; index++) {
    const path = join(folder, String(index));
    writeFileSync(path, "");
    truncateSync(path, 2 * MiB);
  }
  server.spawn();
  const early = await until("the health listener answers", () => probe(`${health}/readyz`));
  expect(early).toEqual({ status: 503, code: "not-ready" });
  expect(await probe(`${health}/livez`)).toEqual({ status: 200, code: undefined });
  await until("it is ready", async () => (await probe(`${health}/readyz`))?.status === 200);
  expect((await server.api.stats()).instance).toBe(server.instance.name);
  expect(await (await fetch(`${health}/metrics`)).text()).toContain('tensord_regions{state="open"} 0');
});

testWith()("while it stops a server is live and not ready, until it is gone", async () => {
  const health = `http://127.0.0.1:${await findPort()}`;
  await using server = await startServer({ env: { TENSORD_HEALTH_ADDRESS: health.slice("http://".length) } });
  expect(await probe(`${health}/readyz`)).toEqual({ status: 200, code: undefined });
  // A client that does not read what it asked for keeps the server from being done.
  const { id } = await server.api.create({ byte_size: 32 * MiB, ttl_ms: 60_000 });
  const reader = connect(server.instance.socket);
  const underWay = new Promise<void>((resolve) => reader.once("data", () => resolve(void reader.pause())));
  reader.write(`GET /v1/regions/${id}/data HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
  await within("bytes are on their way", underWay);
  server.signal("SIGTERM");
  const late = await until("it is no longer ready", async () => {
    const answer = await probe(`${health}/readyz`);
    return answer?.status === 503 && answer;
  });
  expect(late).toEqual({ status: 503, code: "shutting-down" });
  expect(await probe(`${health}/livez`)).toEqual({ status: 200, code: undefined });
  reader.resume();
  expect(await server.exited()).toBe(0);
  expect(reader.bytesRead).toBeGreaterThan(32 * MiB);
  expect(await probe(`${health}/livez`)).toBeUndefined();
});

testWith()("a health address that is taken keeps the server from starting, and nothing is made", async () => {
  using other = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  await using server = new TestServer({ env: { TENSORD_HEALTH_ADDRESS: `127.0.0.1:${other.port}` } });
  const { status, stderr } = await server.command("serve");
  expect([status, stderr]).toEqual([
    1,
    `tensord: Cannot listen for probes on 127.0.0.1, port ${other.port}: the address is in use\n` +
      "hint: Choose another TENSORD_HEALTH_ADDRESS, or leave it empty.\n",
  ]);
});

testWith()("healthcheck ends with status 0 while the server is ready, over the socket and over TCP", async () => {
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  expect(await server.command("healthcheck")).toEqual({ status: 0, stdout: "ready\n", stderr: "" });
  expect(await server.command("healthcheck", "--live")).toEqual({ status: 0, stdout: "live\n", stderr: "" });
  const url = await server.readUrl();
  expect((await server.command("healthcheck", "--url", url)).status).toBe(0);
});

testWith()("healthcheck ends with status 1 and a sentence where no server is, and where one is stuck", async () => {
  await using server = new TestServer();
  const absent = await server.command("healthcheck");
  expect(absent).toMatchObject({ status: 1, stdout: "" });
  expect(absent.stderr).toStartWith(`tensord: Cannot reach a server at unix://${server.instance.socket}: `);
  await server.start();
  server.signal("SIGSTOP");
  const stuck = await server.command("healthcheck", "--live");
  server.signal("SIGCONT");
  expect(stuck).toMatchObject({ status: 1, stdout: "" });
  expect(stuck.stderr).toStartWith(
    "tensord: Cannot wait any longer: the server has not answered within 3000 ms\nhint: ",
  );
  expect((await server.command("healthcheck")).status).toBe(0);
});

testWith()("healthcheck ends with status 1 and the server's own reason while it stops", async () => {
  const path = join(tmpdir(), `tensord-${crypto.randomUUID().slice(0, 8)}.sock`);
  const body = { code: "shutting-down", detail: "Cannot take the request: the server is shutting down", hint: "Wait." };
  using _server = Bun.serve({ unix: path, fetch: () => Response.json(body, { status: 503 }) });
  const { name } = createInstance();
  await using server = new TestServer({ env: { TENSORD_SOCKET: path } });
  expect(await server.command("healthcheck", "--instance", name)).toEqual({
    status: 1,
    stdout: "",
    stderr: `tensord: ${body.detail}\nhint: Wait.\n`,
  });
  rmSync(path, { force: true });
});

testWith()("requests that were served are in the metrics, by method, status and operation", async () => {
  await using server = await startServer();
  const ask = async (path: string) => (await fetch(`http://localhost${path}`, { unix: server.instance.socket })).text();
  const read = (text: string, sample: string) =>
    Number(new RegExp(`^${RegExp.escape(sample)} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
  const samples = [
    'tensord_http_requests_total{method="GET",status="2xx"}',
    'tensord_http_requests_total{method="GET",status="4xx"}',
    'tensord_http_request_duration_seconds_count{operation="listRegions"}',
  ];
  const before = await ask("/metrics");
  for (let count = 0; count < 3; count++) await ask("/v1/regions");
  await ask("/v1/regions/reg_aaaaaaaaaaaaaaaaaaaaaaaaaa");
  const after = await ask("/metrics");
  // The first scrape is a request too.
  expect(samples.map((sample) => read(after, sample) - read(before, sample))).toEqual([4, 1, 3]);
});
