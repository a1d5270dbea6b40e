/** What the transports add to the app: whom TCP lets in, what is counted, and what becomes of clients that go away. */

import { describe, expect, test } from "bun:test";
import { existsSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { Transport } from "../../src/server/transport.ts";
import { until } from "../harness/app.ts";
import { type Listener, RawClient, unwatched, withTcp, withUnix } from "./support/socket.ts";

/** Sends header lines as they are; `PORT` becomes the listener's port. */
async function ask(server: Listener, requestLine: string, lines: readonly string[]) {
  const port = Number(new URL(server.url).port);
  using client = new RawClient(port);
  await client.send(`${[requestLine, ...lines].join("\r\n").replaceAll("PORT", String(port))}\r\n\r\n`);
  return await client.answer();
}

const get = "GET /v1/stats HTTP/1.1";

describe("TCP lets in", () => {
  for (const lines of [
    ["Host: localhost:PORT"],
    ["Host: LOCALHOST:PORT"],
    ["Host: 127.0.0.1:PORT"],
    ["Host: [::1]:PORT"],
    ["Host: localhost"],
    ["Host: localhost:1"],
    ["Host: localhost:8443", "Origin: https://localhost:8443"],
    ["Host: localhost:PORT", "Origin: http://localhost:PORT"],
    ["Host: localhost:PORT", "Origin: http://127.0.0.1:PORT"],
    ["Host: localhost:PORT", "Origin: http://[::1]:PORT"],
  ]) {
    test(
      lines.join(", "),
      withTcp(async (server) => {
        const { status, body } = await ask(server, get, lines);
        expect(status).toBe(200);
        expect(JSON.parse(body)).toMatchObject({ instance: server.app.instance });
      }),
    );
  }
});

describe("HTTP/1.0", () => {
  for (const lines of [[], ["Host: localhost"], ["Host: localhost:PORT", "Connection: keep-alive"]]) {
    test(
      `is answered ${lines.length === 0 ? "without a Host" : `with ${lines.join(", ")}`}, and its connection ends`,
      withTcp(async (server) => {
        const port = Number(new URL(server.url).port);
        const asked = async (request: string, body = "") => {
          using client = new RawClient(port);
          const head = [request, ...lines, `Content-Length: ${body.length}`, "Content-Type: application/json", "", ""];
          await client.send(head.join("\r\n").replaceAll("PORT", String(port)) + body);
          return await client.last();
        };
        expect(await asked("GET /readyz HTTP/1.0")).toMatchObject({ status: 200, body: '{"status":"ok"}' });
        expect(await asked("HEAD /readyz HTTP/1.0")).toMatchObject({ status: 200, body: "" });
        expect((await asked("GET /v1/regions?limit=1 HTTP/1.0"))?.status).toBe(200);
        expect((await asked("GET //evil.example/livez HTTP/1.0"))?.status).toBe(404);
        const created = await asked("POST /v1/regions HTTP/1.0", JSON.stringify({ byte_size: 4, ttl_ms: 60_000 }));
        const { id } = JSON.parse(created?.body ?? "");
        expect(created?.status).toBe(201);
        expect(await asked(`PUT /v1/regions/${id}/data HTTP/1.0`, "four")).toMatchObject({ status: 200 });
        expect(await asked(`GET /v1/regions/${id}/data HTTP/1.0`)).toMatchObject({ status: 200, body: "four" });
      }),
    );
  }

  test(
    "alone may come without a Host: the parser refuses any other before anybody is asked",
    withTcp(async (server) => {
      expect((await ask(server, get, [])).status).toBe(400);
    }),
  );
});

describe("what is no method or no version of ours", () => {
  const host = "Host: localhost:PORT";

  test(
    "is answered with a status: methods of other protocols, and HTTP/2 without TLS",
    withTcp(async (server) => {
      for (const [request, lines, status] of [
        ["PURGE /v1/regions HTTP/1.1", [host], 405],
        ["PROPFIND / HTTP/1.1", [host], 405],
        ["PROPFIND /dav HTTP/1.1", [host], 404],
        ["TRACE /livez HTTP/1.1", [host], 405],
        ["CONNECT evil.example:443 HTTP/1.1", [host], 404],
        ["PRI * HTTP/2.0", ["", "SM"], 400],
        [
          "GET /livez HTTP/1.1",
          [host, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"],
          200,
        ],
      ] as const) {
        const answer = await ask(server, request, lines);
        expect({ request, status: answer.status }).toEqual({ request, status });
      }
    }),
  );

  test(
    "and is no method at all costs its own connection, without a word: the runtime asks nobody",
    withTcp(async (server) => {
      const port = Number(new URL(server.url).port);
      for (const method of ["get", "FOO"]) {
        using client = new RawClient(port);
        await client.send(`${method} /livez HTTP/1.1\r\nHost: localhost\r\n\r\n`);
        expect(await client.last()).toBeUndefined();
      }
      expect((await ask(server, "GET /livez HTTP/1.1", [host])).status).toBe(200);
    }),
  );
});

describe("TCP keeps out", () => {
  const host = "Host: localhost:PORT";
  for (const lines of [
    ["Host: evil.example"],
    ["Host: evil.example:PORT"],
    ["Host: localhost:PORT0"],
    ["Host: localhost.evil.example:PORT"],
    ["Host: evil.localhost:PORT"],
    ["Host: 127.0.0.2:PORT"],
    ["Host: 0.0.0.0:PORT"],
    ["Host: [::]:PORT"],
    ["Host: user@localhost:PORT"],
    ["Host: localhost:PORT."],
    ["Host:"],
    ["Host: localhost:PORT", "Host: evil.example"],
    [host, "Origin: null"],
    [host, "Origin: https://evil.example"],
    [host, "Origin: http://evil.example:PORT"],
    [host, "Origin: https://127.0.0.1:PORT"],
    [host, "Origin: http://localhost"],
    [host, "Origin: http://localhost:1"],
    [host, "Origin: file://"],
    [host, "Origin:"],
  ]) {
    test(
      lines.join(", "),
      withTcp(async (server) => {
        const before = server.app.footprint();
        for (const request of [get, "DELETE /v1/models/default?drain=true HTTP/1.1", "GET /nowhere HTTP/1.1"]) {
          const { status, headers, body } = await ask(server, request, lines);
          expect(status).toBe(403);
          expect(headers.get("content-type")).toBe("application/problem+json");
          expect(JSON.parse(body)).toMatchObject({ code: "forbidden", hint: expect.stringContaining("Unix socket") });
        }
        expect(server.app.footprint()).toEqual(before);
      }),
    );
  }

  test(
    "a page that may not preflight: no answer allows its origin",
    withTcp(async (server) => {
      const lines = ["Host: localhost:PORT", "Origin: https://evil.example", "Access-Control-Request-Method: POST"];
      const { status, headers } = await ask(server, "OPTIONS /v1/regions HTTP/1.1", lines);
      expect(status).toBe(403);
      expect([...headers.keys()].filter((name) => name.startsWith("access-control-"))).toEqual([]);
    }),
  );
});

describe("a foreign host in an absolute target, on REST, on Server-Sent Events and on WebSockets", () => {
  const upgrade = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  ];
  const asked: readonly (readonly [string, readonly string[]])[] = [
    ["/v1/stats", []],
    ["/v1/events", ["Accept: text/event-stream"]],
    ["/v1/events/ws", upgrade],
    ["/v1/sessions/ses_aaaaaaaaaaaaaaaaaaaaaaaaaa/hold", upgrade],
  ];

  test(
    "is refused as browsers and clients of proxies send it: with the same Host",
    withTcp(async (server) => {
      for (const [path, lines] of asked) {
        const request = `GET http://evil.example${path} HTTP/1.1`;
        expect((await ask(server, request, ["Host: evil.example", ...lines])).status).toBe(403);
        expect((await ask(server, `GET ${path} HTTP/1.1`, ["Host: evil.example", ...lines])).status).toBe(403);
        const ours = `GET http://localhost${path} HTTP/1.1`;
        expect((await ask(server, ours, ["Host: evil.example", ...lines])).status).toBe(403);
      }
      expect(server.app.store.feeder.size).toBe(0);
    }),
  );

  test(
    "counts for nothing where Host is ours: the runtime tells of its path alone, and no browser sends one",
    withTcp(async (server) => {
      const { status, body } = await ask(server, "GET http://evil.example/v1/stats HTTP/1.1", ["Host: localhost"]);
      expect({ status, instance: JSON.parse(body).instance }).toEqual({ status: 200, instance: server.app.instance });
    }),
  );
});

describe("the Unix socket", () => {
  test(
    "takes any Host and any Origin, since no web page reaches it",
    withUnix(async (server) => {
      const unix = server.path;
      const headers = { host: "evil.example", origin: "https://evil.example" };
      expect((await fetch("http://localhost/livez", { unix, headers })).status).toBe(200);
    }),
  );

  test(
    "belongs to owner and group alone",
    withUnix(async (server) => {
      expect(statSync(server.path).mode & 0o777).toBe(0o660);
    }),
  );

  test(
    "is removed when the server stops, and a stale one is replaced",
    withUnix(async ({ path, transport }) => {
      await transport.stop(0);
      expect(existsSync(path)).toBeFalse();
      // What a server leaves that was killed: a socket that nobody listens on.
      const { exitCode } = Bun.spawnSync([
        "python3",
        "-c",
        `import socket; socket.socket(socket.AF_UNIX).bind("${path}")`,
      ]);
      expect(exitCode).toBe(0);
      expect(await transport.listenUnix(path)).toBe(`unix://${path}`);
      expect((await fetch("http://localhost/livez", { unix: path })).status).toBe(200);
    }),
  );

  test(
    "of a successor is left alone by the server that stops",
    withUnix(async ({ app, path, transport }) => {
      // It listens no more and has a request to end when the next one comes.
      const headers = { prefer: "wait=300" };
      const waiting = fetch("http://localhost/v1/models/default/regions/weights", { unix: path, headers });
      await until("the request is there", () => app.traffic.requests === 1);
      const stopped = transport.stop(limits.shutdownGraceMs);
      const next = new Transport(app.app, app.traffic, () => {}, unwatched());
      await next.listenUnix(path);
      app.store.stop();
      expect((await waiting).status).toBe(503);
      await stopped;
      expect((await fetch("http://localhost/livez", { unix: path })).status).toBe(200);
      await next.stop(0);
      expect(existsSync(path)).toBeFalse();
    }),
  );

  test(
    "is not taken from a server that listens there, nor from a file that is no socket",
    withUnix(async (server) => {
      const { path } = server;
      const second = server.transport.listenUnix(path);
      await expect(second).rejects.toThrow("another server listens there");
      const file = `${path}.txt`;
      writeFileSync(file, "");
      await expect(server.transport.listenUnix(file)).rejects.toThrow("a file that is no socket");
      expect(existsSync(file)).toBeTrue();
      unlinkSync(file);
      expect((await fetch("http://localhost/livez", { unix: path })).status).toBe(200);
    }),
  );

  test(
    "is refused by a path that the kernel would cut",
    withUnix(async (server) => {
      await expect(server.transport.listenUnix(`/tmp/${"s".repeat(103)}`)).rejects.toThrow("want at most 107");
    }),
  );
});

describe("what the transports count", () => {
  test(
    "is every request, the bytes of bodies in and out, and no other",
    withUnix(async (server) => {
      const unix = server.path;
      const before = await server.app.stats();
      expect(before.http).toEqual({ requests: 0, received_bytes: 0, sent_bytes: 0 });
      const body = JSON.stringify({ byte_size: 64, ttl_ms: 60_000, labels: { job: "größer" } });
      const headers = { "content-type": "application/json" };
      const created = await fetch("http://localhost/v1/regions", { unix, method: "POST", body, headers });
      const text = await created.text();
      const paths = ["/nowhere", "/v1/regions/none", "/v1/regions", "/v1/events", "/v1/capabilities", "/openapi.json"];
      const texts = [text];
      for (const path of paths) texts.push(await (await fetch(`http://localhost${path}`, { unix })).text());
      texts.push(await (await fetch("http://localhost/v1/regions", { unix, method: "PUT" })).text());
      // Its length is told and its body is not sent.
      await fetch("http://localhost/v1/regions", { unix, method: "HEAD" });
      expect((await server.app.stats()).http).toEqual({
        requests: 3 + paths.length,
        received_bytes: Buffer.byteLength(body),
        sent_bytes: texts.reduce((sum, sent) => sum + Buffer.byteLength(sent), 0),
      });
    }),
  );
});

describe("an answer on the wire", () => {
  test(
    "to HEAD has the length that GET's has or none, and no body",
    withTcp(async (server) => {
      const port = Number(new URL(server.url).port);
      const lines = [`Host: localhost:${port}`, "Connection: close", "", ""].join("\r\n");
      using client = new RawClient(port);
      await client.send(`HEAD /livez HTTP/1.1\r\n${lines}`);
      const head = await client.last();
      expect({ status: head?.status, body: head?.body }).toEqual({ status: 200, body: "" });
      const whole = await ask(server, "GET /livez HTTP/1.1", ["Host: localhost:PORT"]);
      expect(head?.headers.get("content-length") ?? null).toBeOneOf([whole.headers.get("content-length"), null]);
    }),
  );

  test(
    "carries the id that the client gave, so that it finds the request in the log",
    withTcp(async ({ url }) => {
      const headers = { "x-request-id": "from-the-client" };
      expect((await fetch(`${url}/livez`, { headers })).headers.get("x-request-id")).toBe("from-the-client");
      for (const path of ["/nowhere", "/v1/regions/reg_x"]) {
        expect(await (await fetch(url + path, { headers })).json()).toMatchObject({ request_id: "from-the-client" });
      }
    }),
  );

  test(
    "to a request that is no HTTP closes that connection only",
    withTcp(async (server) => {
      for (const garbage of [
        "garbage",
        "GET /livez HTTP/9.9",
        "GET",
        "POST /v1/regions HTTP/1.1\r\ncontent-length: -1",
      ]) {
        expect((await ask(server, garbage, ["Host: localhost:PORT"])).status).toBeGreaterThanOrEqual(400);
      }
      expect((await ask(server, get, ["Host: localhost:PORT"])).status).toBe(200);
    }),
  );
});

describe("a client that goes away", () => {
  const waiting = "GET /v1/models/default/regions/weights HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=300\r\n\r\n";

  test(
    "while it waits is forgotten, and that is nobody's mistake",
    withUnix(async (server) => {
      const { path } = server;
      const clients = Array.from({ length: 20 }, () => new RawClient(path));
      for (const client of clients) await client.send(waiting);
      await until("all of them wait", () => server.app.traffic.requests === clients.length);
      for (const client of clients) client.destroy();
      // A stop waits for requests that are under way: none may be.
      await server.transport.stop(60_000);
      expect(server.app.mistakes).toEqual([]);
    }),
  );

  test(
    "before its region is made leaves nothing behind",
    withUnix(async (server) => {
      const before = server.app.footprint();
      const body = JSON.stringify({ byte_size: 256 * 1024 * 1024, ttl_ms: 60_000, name: "weights" });
      using client = new RawClient(server.path);
      const head = `POST /v1/regions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json`;
      await client.send(`${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      await until("its creation is under way", () => server.app.store.books.counts.creating === 1);
      client.destroy();
      await until("its creation is undone", () => Bun.deepEquals(server.app.footprint(), before));
      expect(server.app.mistakes).toEqual([]);
    }),
  );
});
