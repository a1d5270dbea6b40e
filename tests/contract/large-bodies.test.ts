/** Bodies of megabytes: those that are refused cost the server little, and those that are allowed are answered right. */

import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { parseHeader } from "../../src/memory/layout/layout.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { toFileBytes } from "../../src/memory/storage/tensor-files.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Problem, Region } from "../harness/answers.ts";
import { toCharge, withApp } from "../harness/app.ts";
import { Intruder } from "./support/lease.ts";
import { ServerProcess } from "./support/server-process.ts";
import { RawClient } from "./support/socket.ts";

const chunk = Buffer.alloc(64 * 1024, " ");

/** Sends `byteSize` spaces as a body, all of them even if the answer comes earlier, as most clients do. */
async function sendSpaces(
  client: RawClient,
  request: string,
  byteSize: number,
  framing: "length" | "chunked",
  headers: readonly string[] = [],
): Promise<void> {
  const field = framing === "chunked" ? "transfer-encoding: chunked" : `content-length: ${byteSize}`;
  const lines = [`${request} HTTP/1.1`, "host: localhost", "content-type: application/json", field, ...headers];
  await client.send(`${lines.join("\r\n")}\r\n\r\n`);
  for (let sent = 0; sent < byteSize && !client.hasEnded; sent += chunk.length) {
    if (framing === "chunked") await client.send(`${chunk.length.toString(16)}\r\n`);
    await client.send(chunk);
    if (framing === "chunked") await client.send("\r\n");
  }
  if (framing === "chunked") await client.send("0\r\n\r\n");
}

describe("a body of 100 MB", () => {
  for (const [framing, allowedBytes] of [
    ["length", 16 * MiB],
    // It cannot be known before it comes, so the server holds what it has read up to its limit, and its decoder's copy.
    ["chunked", 4 * limits.createBodyBytes],
  ] as const) {
    test(`sent by ${framing} is refused with a problem, and the server's memory stays bounded`, async () => {
      await using server = await ServerProcess.start();
      const before = server.memory.residentBytes;
      for (let round = 0; round < 2; round++) {
        server.forgetPeak();
        using client = new RawClient(server.socket);
        await sendSpaces(client, "POST /v1/regions", 100 * MiB, framing);
        const { status, headers, body } = await client.answer();
        expect({ status, contentType: headers.get("content-type") }).toEqual({
          status: 413,
          contentType: "application/problem+json",
        });
        expect(JSON.parse(body)).toMatchObject({ code: "payload-too-large", status: 413 });
        expect(server.memory.peakBytes - before).toBeLessThan(allowedBytes);
      }
      using next = new RawClient(server.socket);
      await next.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
      expect((await next.answer()).status).toBe(200);
    });
  }

  test("to a GET, also to one that waits, is not kept in memory", async () => {
    await using server = await ServerProcess.start();
    const before = server.memory.residentBytes;
    for (const framing of ["length", "chunked"] as const) {
      using client = new RawClient(server.socket);
      await sendSpaces(client, "GET /v1/models/default/regions/weights", 100 * MiB, framing, ["prefer: wait=1"]);
      expect((await client.answer()).status).toBe(404);
      expect(server.memory.peakBytes - before).toBeLessThan(16 * MiB);
    }
  });

  test(
    "is refused by its Content-Length before a byte of it is there",
    withApp(async (app) => {
      let pulled = 0;
      const body = new ReadableStream({
        pull(controller) {
          pulled += 1;
          controller.enqueue(chunk);
        },
      });
      const headers = { "content-type": "application/json", "content-length": String(100 * MiB) };
      const response = await app.app.fetch(
        new Request("http://localhost/v1/regions", { method: "POST", body, headers }),
        {},
      );
      expect(response.status).toBe(413);
      expect(pulled).toBeLessThan(10);
    }),
  );
});

describe("a body of just the allowed size", () => {
  test(
    "is read, and one byte more is not",
    withApp(async (app) => {
      const request = JSON.stringify({ byte_size: 64, ttl_ms: 60_000 });
      await app.ok(201, "POST", "/v1/regions", request.padEnd(limits.createBodyBytes));
      await app.refused("payload-too-large", "POST", "/v1/regions", request.padEnd(limits.createBodyBytes + 1));
      const { id } = await app.create();
      const change = JSON.stringify({ labels: { job: "nightly" } });
      await app.ok(200, "PATCH", `/v1/regions/${id}`, change.padEnd(limits.requestBodyBytes));
      await app.refused("payload-too-large", "PATCH", `/v1/regions/${id}`, change.padEnd(limits.requestBodyBytes + 1));
    }),
  );
});

describe("many tensors", () => {
  const toTensors = (length: number) =>
    Array.from({ length }, (_, index) => ({
      name: `layer.${index}`,
      dtype: (["U8", "F32", "F64", "BF16"] as const)[index % 4],
      shape: [index % 7, 3],
    }));

  const count = 10_000;

  test(
    "10,000 in one call lie in one file, each at its own place, without a gap or an overlap",
    withApp(async (app) => {
      const asked = toTensors(count);
      const region = await app.create({ tensors: asked, name: "many" });
      expect(region.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(asked as never);
      const sizes: Record<string, number> = { U8: 1, F32: 4, F64: 8, BF16: 2 };
      let end = Math.min(...region.tensors.map(({ byte_offset }) => byte_offset));
      expect(end % 4096).toBe(0);
      for (const tensor of region.tensors.toSorted(
        (a, b) => a.byte_offset - b.byte_offset || a.byte_size - b.byte_size,
      )) {
        const elements = tensor.shape.reduce((product, dimension) => product * dimension, 1);
        expect(tensor.byte_size).toBe(elements * (sizes[tensor.dtype] ?? Number.NaN));
        expect(tensor.byte_offset).toBe(end);
        expect(tensor.aligned).toBe(tensor.byte_offset % (sizes[tensor.dtype] ?? 1) === 0);
        end += tensor.byte_size;
      }
      expect(region.storage.byte_size).toBe(end);
      expect(statSync(region.storage.path).size).toBe(end);
      using file = new Intruder(region.storage.path);
      const { tensors: inFile } = parseHeader(file.read(0, end), end);
      expect(new Set(inFile.map(({ name, byteOffset }) => `${name} ${byteOffset}`))).toEqual(
        new Set(region.tensors.map(({ name, byte_offset }) => `${name} ${byte_offset}`)),
      );
      const list = app.store.books.region(region.id).tensors;
      expect(hostOf(await app.stats()).used_bytes).toBe(toCharge(end) + toFileBytes(list));
      expect((await app.get(region.id)).tensors).toEqual(region.tensors);
    }),
  );

  test(
    "100,001 are refused",
    withApp(async (app) => {
      const problem = await app.refused("validation-failed", "POST", "/v1/regions", {
        tensors: toTensors(limits.regionTensors + 1),
        ttl_ms: 60_000,
      });
      expect(problem.detail).toContain("tensors");
    }),
  );

  test(
    "10,000 with the longest names fit into a body",
    withApp(async (app) => {
      const asked = Array.from({ length: count }, (_, index) => {
        return { name: `${index}.`.padEnd(limits.tensorNameBytes, "n"), dtype: "U8", shape: [1] };
      });
      const region = await app.create({ tensors: asked });
      expect(region.tensors.length).toBe(count);
      expect(new Set(region.tensors.map(({ byte_offset }) => byte_offset)).size).toBe(count);
    }),
  );
});

describe("a hostile body of megabytes", () => {
  const keys = (count: number, value: string) =>
    Array.from({ length: count }, (_, index) => `"k${index}":${value}`).join();
  const owned = '"byte_size":64,"ttl_ms":60000';
  const badTensor = `{"name":0,"dtype":"XX","shape":[${Array(64).fill("-1").join()}],"x":1}`;
  const bodies: Readonly<Record<string, () => string>> = {
    "16 MiB of opening brackets": () => "[".repeat(16 * MiB),
    "16 MiB of opening brackets where the labels should be": () => `{"labels":${"[".repeat(16 * MiB - 20)}`,
    "16 MiB of opening braces": () => '{"a":'.repeat(3_300_000),
    "16 MiB of brackets in a string, and then one": () => `{"name":"${"[".repeat(16_000_000)}"}`,
    "16 MiB of escaped quotes": () => `{"name":"${'\\"'.repeat(8_000_000)}"}`,
    "16 MiB of backslashes": () => `{"name":"${"\\\\".repeat(8_000_000)}"}`,
    "8,000,000 numbers for tensors": () => `{"ttl_ms":1,"tensors":[${"0,".repeat(8_000_000)}0]}`,
    "4,000,000 empty tensors": () => `{"ttl_ms":1,"tensors":[${"{},".repeat(4_000_000)}{}]}`,
    "10,000 tensors with every mistake there is": () =>
      `{"ttl_ms":1,"tensors":[${Array(10_000).fill(badTensor).join()}]}`,
    "8,000,000 dimensions": () =>
      `{"ttl_ms":1,"tensors":[{"name":"w","dtype":"F32","shape":[${"1,".repeat(7_900_000)}1]}]}`,
    "3,000,000 dimensions that are none": () =>
      `{"ttl_ms":1,"tensors":[{"name":"w","dtype":"F32","shape":[${"-0.5,".repeat(3_000_000)}1]}]}`,
    "800,000 labels": () => `{${owned},"labels":{${keys(800_000, '"v"')}}}`,
    "800,000 labels that are numbers": () => `{${owned},"labels":{${keys(800_000, "0")}}}`,
    "800,000 unknown fields": () => `{${owned},${keys(800_000, "0")}}`,
    "a name of 16 MB": () => `{${owned},"name":"${"n".repeat(16_000_000)}"}`,
    "a tensor's name of 16 MB": () =>
      `{"ttl_ms":1,"tensors":[{"name":"${"n".repeat(16_000_000)}","dtype":"U8","shape":[]}]}`,
    "a label's key of 16 MB": () => `{${owned},"labels":{"${"n".repeat(16_000_000)}":"v"}}`,
    "an unknown field of 16 MB": () => `{${owned},"${"n".repeat(16_000_000)}":0}`,
  };

  for (const [what, body] of Object.entries(bodies)) {
    test(
      `${what}: answered as the client's mistake, in a few words`,
      withApp(async (app) => {
        const before = app.footprint();
        const { status, body: answer } = await app.request("POST", "/v1/regions", body());
        expect({ status, answer }).toMatchObject({ status: 422, answer: { code: "validation-failed" } });
        expect(JSON.stringify(answer).length).toBeLessThan(16 * 1024);
        expect((answer as Problem).detail.length).toBeLessThan(500);
        expect(app.footprint()).toEqual(before);
        await app.remove((await app.create()).id);
      }),
    );
  }

  test("after another: a row of them leaves the server's memory bounded", async () => {
    await using server = await ServerProcess.start();
    const before = server.memory.residentBytes;
    const body = `{"ttl_ms":1,"tensors":[${"{},".repeat(5_000_000)}{}]}`;
    const headers = { "content-type": "application/json" };
    for (let round = 0; round < 4; round++) {
      const response = await fetch("http://localhost/v1/regions", {
        unix: server.socket,
        method: "POST",
        body,
        headers,
      });
      expect(response.status).toBe(422);
      await response.text();
      expect(server.memory.peakBytes - before).toBeLessThan(384 * MiB);
    }
  });

  test(
    "for labels of a region that stands is refused too",
    withApp(async (app) => {
      const { id } = await app.create();
      for (const value of ['"v"', "0", "null"]) {
        const { status } = await app.request("PATCH", `/v1/regions/${id}`, `{"labels":{${keys(60_000, value)}}}`);
        expect(status).toBe(422);
      }
      expect(await app.ok<Region>(200, "GET", `/v1/regions/${id}`)).toMatchObject({ labels: {}, revision: 1 });
    }),
  );
});
