/**
 * What becomes of a body whose request is refused on a connection that ends with its answer, as nginx and Python's urllib
 * ask: such clients send all of it first, and hear the answer only if nobody hangs up on them meanwhile.
 */

import { describe, expect, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import type { TestApp } from "../harness/app.ts";
import { unknownRegion } from "./support/requests.ts";
import { type Listener, type RawAnswer, RawClient, withTcp, withUnix } from "./support/socket.ts";

/** More than the kernel keeps of a connection, and more than a body of JSON may have. */
const byteSize = 20 * MiB;
const chunk = Buffer.alloc(MiB, " ");

type Framing = "length" | "chunked";

interface Refusal {
  readonly request: string | ((app: TestApp) => Promise<string>);
  readonly headers?: readonly string[];
  readonly framing?: readonly Framing[];
  readonly code: string;
}

const json = ["Content-Type: application/json"];
const toData = (id: string) => `PUT /v1/regions/${id}/data`;

const refusals: Readonly<Record<string, Refusal>> = {
  "data for a region that is not there": { request: toData(unknownRegion), code: "region-not-found" },
  "data for a sealed region": {
    request: async (app) => {
      const { id } = await app.create({ byte_size: byteSize });
      await app.seal(id);
      return toData(id);
    },
    code: "region-sealed",
  },
  "more data than there is room for": {
    request: async (app) => toData((await app.create({ byte_size: MiB })).id),
    code: "payload-too-large",
  },
  "data of a part outside of the region": {
    request: async (app) => toData((await app.create()).id),
    headers: ["Content-Range: bytes 100-199/*"],
    code: "range-not-satisfiable",
  },
  "data under an encoding": {
    request: async (app) => toData((await app.create({ byte_size: byteSize })).id),
    headers: ["Content-Encoding: gzip"],
    code: "unsupported-media-type",
  },
  "too much JSON": { request: "POST /v1/models", headers: json, code: "payload-too-large" },
  "JSON under an encoding": {
    request: "POST /v1/regions",
    headers: [...json, "Content-Encoding: br"],
    code: "unsupported-media-type",
  },
  "a body for no route": { request: "POST /nowhere", code: "route-not-found" },
  "a body for a route without that method": { request: "PUT /v1/regions", code: "method-not-allowed" },
};

async function send(server: Listener, head: readonly string[], framing: Framing): Promise<RawAnswer> {
  const target = server.path === "" ? Number(new URL(server.url).port) : server.path;
  using client = new RawClient(target);
  const field = framing === "chunked" ? "Transfer-Encoding: chunked" : `Content-Length: ${byteSize}`;
  await client.send(`${[...head, field, "Connection: close"].join("\r\n")}\r\n\r\n`);
  for (let sent = 0; sent < byteSize; sent += chunk.length) {
    expect(client.hasEnded, `after ${sent} bytes`).toBeFalse();
    if (framing === "chunked") await client.send(`${chunk.length.toString(16)}\r\n`);
    await client.send(chunk);
    if (framing === "chunked") await client.send("\r\n");
  }
  if (framing === "chunked") await client.send("0\r\n\r\n");
  return await client.answer();
}

for (const [transport, withServer] of [
  ["TCP", withTcp],
  ["the Unix socket", withUnix],
] as const) {
  describe(`over ${transport} a refusal is heard of`, () => {
    for (const [what, { request, headers = [], code }] of Object.entries(refusals)) {
      test(
        what,
        withServer(async (server) => {
          for (const framing of ["length", "chunked"] as const) {
            const line = typeof request === "string" ? request : await request(server.app);
            const answer = await send(server, [`${line} HTTP/1.1`, "Host: localhost", ...headers], framing);
            expect({ framing, ...JSON.parse(answer.body) }).toMatchObject({ framing, code });
          }
        }),
      );
    }
  });
}

describe("on TCP", () => {
  test(
    "a host that is kept out hears so, too",
    withTcp(async (server) => {
      const answer = await send(server, ["PUT /v1/regions HTTP/1.1", "Host: evil.example"], "length");
      expect(JSON.parse(answer.body)).toMatchObject({ code: "forbidden" });
    }),
  );

  test(
    "HTTP/1.0 without a Host, whose every connection ends, hears so, too",
    withTcp(async (server) => {
      const answer = await send(server, [`PUT /v1/regions/${unknownRegion}/data HTTP/1.0`], "length");
      expect(JSON.parse(answer.body)).toMatchObject({ code: "region-not-found" });
    }),
  );
});

test(
  "who asks whether to send the body is told to, and then hears the refusal",
  withUnix(async (server) => {
    using client = new RawClient(server.path);
    const head = [
      "PUT /nowhere HTTP/1.1",
      "Host: localhost",
      "Content-Length: 4",
      "Connection: close",
      "Expect: 100-continue",
    ];
    await client.send(`${head.join("\r\n")}\r\n\r\n`);
    // The runtime says so before it asks us (oven-sh/bun#30248).
    expect((await client.answer()).status).toBe(100);
    await client.send("body");
    expect((await client.last())?.body).toContain('"route-not-found"');
  }),
);

test(
  "on a connection that is kept the answer comes at once, and the body is passed over",
  withUnix(async (server) => {
    using client = new RawClient(server.path);
    await client.send(`PUT /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${byteSize}\r\n\r\n`);
    expect((await client.answer()).status).toBe(404);
    for (let sent = 0; sent < byteSize; sent += chunk.length) await client.send(chunk);
    await client.send("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect((await client.last())?.body).toEndWith('{"status":"ok"}');
  }),
);

test(
  "a server that stops waits for nobody who is refused",
  withUnix(async (server) => {
    using client = new RawClient(server.path);
    await client.send(
      `PUT /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${byteSize}\r\nConnection: close\r\n\r\n`,
    );
    await client.send(chunk);
    const stopped = server.transport.stop(limits.shutdownGraceMs);
    expect((await client.last())?.status).toBe(404);
    await stopped;
  }),
);
