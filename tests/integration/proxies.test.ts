/**
 * What others see of a real server behind nginx and haproxy, with the configurations that `docs/proxies.md` shows, and
 * behind an nginx that is told nothing but where the server is; the same without a proxy, to compare.
 */

import { afterAll, beforeAll, describe, expect } from "bun:test";
import { randomBytes } from "node:crypto";
import { DataSocket } from "../harness/data-socket.ts";
import { type EventFrame, readServerSentEvents } from "../harness/event-frame.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, python, testWith } from "../harness/instance-needs.ts";
import { adapt, FrontProxy, findPort, needsHaproxy, needsNginx, readExample } from "../harness/proxy.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { Subscriber } from "../harness/subscriber.ts";
import { runScript } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
/** More than a JSON body may have, and than the kernels between keep of a connection. */
const refusedBytes = 24 * MiB;
const unknownRegion = `reg_${"a".repeat(26)}`;

const all = new AsyncDisposableStack();
let server: TestServer;
let nginx: FrontProxy;
let plainNginx: FrontProxy;
let haproxy: FrontProxy;

beforeAll(async () => {
  const health = `127.0.0.1:${await findPort()}`;
  const env = { TENSORD_PORT: "0", TENSORD_ALLOWED_HOSTS: "gpu.example.com", TENSORD_HEALTH_ADDRESS: health };
  server = all.use(await startServer({ env }));
  const { host } = new URL(await server.readUrl());
  if (needsNginx === undefined) {
    nginx = all.use(await startNginx(readExample("nginx"), host));
    const plain =
      "events {}\nhttp {\nserver { listen 8080; client_max_body_size 0; location / { proxy_pass http://127.0.0.1:7411; } }\n}\n";
    plainNginx = all.use(await startNginx(plain, host));
  }
  if (needsHaproxy === undefined) {
    const port = await findPort();
    const example = adapt(readExample("haproxy"), { ":8081": `127.0.0.1:${port}`, "127.0.0.1:7411": host });
    const probes = `\nbackend probes\n  option httpchk\n  server local ${health} check inter 1s\n`;
    haproxy = all.use(await FrontProxy.haproxy(port, example + probes));
  }
});
afterAll(async () => {
  await all.disposeAsync();
  assertNothingLeft();
});

async function startNginx(configuration: string, host: string): Promise<FrontProxy> {
  const port = await findPort();
  const own = { "listen 8080": `listen 127.0.0.1:${port}`, "127.0.0.1:7411": host };
  return await FrontProxy.nginx(port, adapt(configuration, own));
}

interface Way {
  readonly need: string | undefined;
  readonly base: () => string;
  readonly prefix: string;
  readonly passesHost: boolean;
  readonly passesUpgrade: boolean;
}

const ways: Readonly<Record<string, Way>> = {
  "without a proxy": {
    need: undefined,
    base: () => direct,
    prefix: "",
    passesHost: true,
    passesUpgrade: true,
  },
  "behind nginx": {
    need: needsNginx,
    base: () => `${nginx.url}/tensord`,
    prefix: "/tensord",
    passesHost: true,
    passesUpgrade: true,
  },
  "behind an nginx that is told nothing": {
    need: needsNginx,
    base: () => plainNginx.url,
    prefix: "",
    passesHost: false,
    passesUpgrade: false,
  },
  "behind haproxy": {
    need: needsHaproxy,
    base: () => `${haproxy.url}/tensord`,
    prefix: "/tensord",
    passesHost: true,
    passesUpgrade: true,
  },
};

let direct = "";
beforeAll(async () => {
  direct = await server.readUrl();
});

async function post<Body>(url: string, body: object): Promise<Body> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  expect(response.status).toBeLessThan(300);
  return (await response.json()) as Body;
}

for (const [where, { need, base, prefix, passesHost, passesUpgrade }] of Object.entries(ways)) {
  describe(where, () => {
    const create = (name?: string) =>
      post<Region>(`${base()}/v1/regions`, { byte_size: 8 * MiB, ttl_ms: hour, ...(name && { name }) });

    testWith(need)("a region lives and ends over REST, and a failure is the server's own problem", async () => {
      const { id } = await create("weights");
      const byName = `${base()}/v1/models/default/regions/weights`;
      expect(await (await fetch(byName)).json()).toMatchObject({ id, state: "open" });
      expect(await post(`${base()}/v1/regions/${id}/seal`, {})).toMatchObject({ id, state: "sealed" });
      expect((await fetch(byName, { method: "HEAD" })).status).toBe(200);
      expect((await fetch(byName, { method: "OPTIONS" })).headers.get("allow")).toContain("HEAD");
      expect(await (await fetch(byName, { method: "DELETE" })).json()).toMatchObject({ state: "deleted" });
      const gone = await fetch(byName);
      expect([gone.status, gone.headers.get("content-type")]).toEqual([404, "application/problem+json"]);
      expect(await gone.json()).toMatchObject({ code: "region-not-found" });
      const waiting = fetch(byName, { headers: { prefer: "wait=60" } });
      const { id: next } = await create("weights");
      await server.api.seal(next);
      expect(await (await waiting).json()).toMatchObject({ id: next });
      await server.api.delete(next);
    });

    testWith(need)("bytes go in and come out, whole and in part", async () => {
      const { id } = await create();
      const url = `${base()}/v1/regions/${id}/data`;
      const bytes = randomBytes(8 * MiB);
      const upload = await fetch(url, { method: "PUT", body: bytes });
      expect([upload.status, await upload.json()]).toEqual([200, { written_bytes: bytes.length }]);
      const part = {
        method: "PUT",
        headers: { "content-range": "bytes 4095-4096/*" },
        body: bytes.subarray(4095, 4097),
      };
      expect((await fetch(url, part)).status).toBe(200);
      await server.api.seal(id);
      const whole = await fetch(url);
      expect(bytes.equals(await whole.bytes())).toBeTrue();
      const etag = whole.headers.get("etag") ?? "";
      for (const headers of [
        { range: "bytes=1000000-2999999" },
        { range: "bytes=1000000-2999999", "if-range": etag },
      ]) {
        const range = await fetch(url, { headers });
        expect([range.status, range.headers.get("content-range")]).toEqual([
          206,
          `bytes 1000000-2999999/${bytes.length}`,
        ]);
        expect(bytes.subarray(1_000_000, 3_000_000).equals(await range.bytes())).toBeTrue();
      }
      expect((await fetch(url, { headers: { range: "bytes=99999999-" } })).status).toBe(416);
      await server.api.delete(id);
    });

    testWith(need)("who sends all of a refused upload before it listens hears why", async () => {
      const { pathname } = new URL(base());
      const at = (path: string) => (pathname === "/" ? path : pathname + path);
      const block = Buffer.alloc(MiB, " ");
      for (const [method, path, type, code] of [
        ["PUT", `/v1/regions/${unknownRegion}/data`, "application/octet-stream", "region-not-found"],
        ["POST", "/v1/models", "application/json", "payload-too-large"],
        ["POST", "/v1/nowhere", "application/json", "route-not-found"],
      ] as const) {
        using socket = new DataSocket(base());
        await socket.ask(
          method,
          at(path),
          `Content-Length: ${refusedBytes}`,
          `Content-Type: ${type}`,
          "Connection: close",
        );
        await socket.pour(block, refusedBytes);
        expect(JSON.parse((await socket.answer()).body.toString())).toMatchObject({ code });
      }
    });

    testWith(need, needsPython)("Python's urllib hears why an upload is refused", async () => {
      const url = `${base()}/v1/regions/${unknownRegion}/data`;
      const answer = await runScript(python ?? "", "urllib_upload.py", url, String(refusedBytes));
      expect(answer).toMatchObject({ status: 404, body: { code: "region-not-found" } });
    });

    testWith(need)(
      "events come as they happen over Server-Sent Events, and a stream resumes by Last-Event-ID",
      async () => {
        await using subscriber = await Subscriber.open(base(), "server-sent-events");
        const { id } = await create();
        // It comes although the stream goes on: nothing collects it on the way.
        const isAllocation = ({ type, data }: EventFrame) => type === "tensord.region.allocated" && data.id === id;
        const allocation = await until("the allocation is told", () => subscriber.events.find(isAllocation));
        await subscriber.close();
        await server.api.delete(id);
        const headers = { accept: "text/event-stream", "last-event-id": allocation.id };
        const stream = await fetch(`${base()}/v1/events`, { headers });
        const types: string[] = [];
        for await (const { type, data } of readServerSentEvents(stream.body as ReadableStream<Uint8Array>)) {
          if (data.id === id) types.push(type);
          if (types.length === 2) break;
        }
        expect(types).toEqual(["tensord.region.draining", "tensord.region.deleted"]);
      },
    );

    if (passesUpgrade)
      testWith(need)("events come over a WebSocket, and a session lives as long as it is held", async () => {
        await using subscriber = await Subscriber.open(base(), "websocket");
        const { id } = await post<{ id: string }>(`${base()}/v1/sessions`, { ttl_ms: hour });
        const hold = new WebSocket(`${base().replace("http:", "ws:")}/v1/sessions/${id}/hold`);
        const isHeld = async () =>
          ((await (await fetch(`${base()}/v1/sessions/${id}`)).json()) as { held: boolean }).held;
        await until("it is held", isHeld);
        hold.close();
        await until("its end is told", () => subscriber.events.some(({ type }) => type === "tensord.session.ended"));
      });

    testWith(need)("names that it may not be called, and pages from elsewhere, stay out", async () => {
      const ask = async (headers: Record<string, string>) => {
        const { status } = await fetch(`${base()}/v1/stats`, { headers });
        return status;
      };
      const evil = "http://evil.example";
      expect(await ask({ host: "gpu.example.com" })).toBe(200);
      expect(await ask({ origin: "https://gpu.example.com" })).toBe(200);
      expect(await ask({ origin: evil })).toBe(403);
      expect(await ask({ host: "gpu.example.com", origin: evil })).toBe(403);
      // Who puts another Host there answers for whom it lets in.
      expect(await ask({ host: "evil.example" })).toBe(passesHost ? 403 : 200);
      expect(await ask({ host: "localhost:8080", origin: "http://localhost:8080" })).toBe(passesHost ? 200 : 403);
    });

    testWith(need)("the reference page loads all that it needs, and the document names where it is", async () => {
      const { origin } = new URL(base());
      for (const path of ["/docs", "/docs/"]) {
        const page = await (await fetch(base() + path)).text();
        const urls = [...page.matchAll(/\b(?:src|href)="([^"]*)"/g)].map(([, url = ""]) => new URL(url, base() + path));
        const own = urls.filter(({ protocol }) => protocol === "http:");
        expect(own).toHaveLength(3);
        for (const url of own) expect((await fetch(url)).status).toBe(200);
      }
      const document = (await (await fetch(`${base()}/openapi.json`)).json()) as { servers: { url: string }[] };
      expect(document.servers[0]?.url).toBe(prefix || "http://127.0.0.1:7411");
      const probe = await fetch(new URL(`${prefix}/readyz`, origin));
      expect(probe.status).toBe(200);
    });
  });
}

testWith(needsHaproxy)(
  "haproxy's check is up without a path, on both listeners, and down without a server",
  async () => {
    const read = () => Promise.all(["tensord", "probes"].map((backend) => haproxy.readCheck(backend)));
    await until("both are up", async () => (await read()).every((check) => check === "UP L7OK 204"));
    await server.stop();
    await until("both are down", async () => (await read()).every((check) => check.startsWith("DOWN")));
    expect((await fetch(`${haproxy.url}/tensord/readyz`)).status).toBe(503);
    await server.start();
  },
);
