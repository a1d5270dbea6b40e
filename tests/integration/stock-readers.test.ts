/** Readers that know nothing of tensord: Python's SharedMemory and safetensors. And what their habits cannot destroy. */

import { afterAll, expect } from "bun:test";
import { closeSync, lstatSync, openSync, readFileSync, unlinkSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { checkBooks, readMetadata } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, needsStockPython, python, stockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import type { TestServer } from "../harness/server.ts";
import type { NewRegion, Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { runScript } from "../harness/worker.ts";

const hour = 3_600_000;
const vector = [{ name: "data", dtype: "U8" as const, shape: [10_000] }];
const relinked = /^tensord\.region\.relinked$/;

afterAll(endLentServers);

interface Found {
  readonly size: number;
  readonly sha256: string;
}

function readStock({ storage }: Region, offset = 0, value = -1): Promise<Found> {
  return runScript(python ?? "", "stock_shared_memory.py", (storage.shm_name ?? "").slice(1), `${offset}`, `${value}`);
}

function sha256({ storage }: Region): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(storage.path)).digest("hex");
}

/** Waits until the name stands again, on the file that it stood on before. */
async function untilRelinked(server: TestServer, region: Region, cause: string): Promise<void> {
  const isThere = () => lstatSync(region.storage.path, { throwIfNoEntry: false })?.ino === Number(region.storage.ino);
  await until("the name is back", isThere);
  const line = await until("the log says so", () => server.log.find(relinked));
  expect(line).toMatchObject({ region: region.id, cause, level: 40 });
}

testWith(needsPython)(
  "SharedMemory opens an open region by its shm_name, reads it whole and writes to it",
  async () => {
    await using server = await lendServer();
    server.log.expect(relinked);
    const region = await server.api.create({ name: "stock", tensors: vector, ttl_ms: hour });
    writeContent(region, 21);
    expect(region.storage.shm_name).toBe(`/${basename(region.storage.path)}`);
    const offset = region.tensors[0]?.byte_offset ?? 0;
    const expected = sha256(region);
    expect(await readStock(region, offset, 200)).toMatchObject({ size: region.storage.byte_size, sha256: expected });
    // Its exit took the name away; asking brings it back.
    const { storage } = await server.api.get(region.id);
    expect(readFileSync(storage.path)[offset]).toBe(200);
  },
);

testWith(needsPython)(
  "a region outlives the resource tracker of a stock reader, which unlinks it at exit",
  async () => {
    await using server = await lendServer();
    server.log.expect(relinked);
    const region = await server.api.create({ name: "tracked", tensors: vector, ttl_ms: hour });
    writeContent(region, 22);
    await server.api.seal(region.id, { stock_writable: true, checksum: true });
    const before = readContent(region.storage.path);
    await readStock(region);
    await untilRelinked(server, region, "unlinked");
    expect(readContent(region.storage.path)).toEqual(before);
    // And once more, by who comes next.
    const expected = sha256(region);
    expect((await readStock(region)).sha256).toBe(expected);
    await until(
      "the second loss is mended too",
      () => server.log.lines.filter(({ msg }) => relinked.test(msg)).length >= 2,
    );
    expect((await server.api.verify(region.id)).ok).toBeTrue();
    await checkBooks(server);
  },
);

testWith()("rm of a public name is undone, with the same file", async () => {
  await using server = await lendServer();
  server.log.expect(relinked);
  const region = await server.api.create({ name: "removed", tensors: vector, ttl_ms: hour });
  writeContent(region, 23);
  const before = readContent(region.storage.path);
  unlinkSync(region.storage.path);
  await untilRelinked(server, region, "unlinked");
  expect(readContent(region.storage.path)).toEqual(before);
  await checkBooks(server);
});

testWith()("a GET mends the name in the same turn, and the answer's path can be opened", async () => {
  await using server = await lendServer();
  server.log.expect(relinked);
  const region = await server.api.create({ name: "asked", tensors: vector, ttl_ms: hour });
  for (let round = 0; round < 50; round++) {
    unlinkSync(region.storage.path);
    const { storage } = await server.api.get(region.id);
    expect(readContent(storage.path).ino).toBe(region.storage.ino);
  }
});

testWith()("all of a thousand names that are removed at once come back", async () => {
  await using server = await lendServer();
  server.log.expect(relinked);
  const regions = await Promise.all(
    Array.from({ length: 1000 }, (_, index) => server.api.create({ name: `r${index}`, byte_size: 1, ttl_ms: hour })),
  );
  for (const { storage } of regions) unlinkSync(storage.path);
  await until("every name is back", () =>
    regions.every(({ storage }) => lstatSync(storage.path, { throwIfNoEntry: false })?.ino === Number(storage.ino)),
  );
  await checkBooks(server);
});

testWith()("a name that was lost while no server ran is back after the start", async () => {
  await using server = await lendServer();
  server.log.expect(relinked);
  const region = await server.api.create({ name: "down", tensors: vector, persist: true });
  writeContent(region, 24);
  const before = readContent(region.storage.path);
  await server.stop();
  unlinkSync(region.storage.path);
  await server.start();
  expect(readContent(region.storage.path)).toEqual(before);
});

testWith(needsStockPython)("safetensors opens a region, with every dtype's bytes and our metadata", async () => {
  await using server = await lendServer();
  const tensors: NewRegion["tensors"] = [
    { name: "weights", dtype: "F32", shape: [16, 4] },
    { name: "mask", dtype: "BOOL", shape: [5] },
    { name: "scalar", dtype: "F64", shape: [] },
    { name: "nothing", dtype: "I64", shape: [0, 3] },
    { name: "snowman ☃", dtype: "I16", shape: [3] },
  ];
  const region = await server.api.create({ name: "stock", tensors, ttl_ms: hour });
  fill(region, "weights", new Float32Array(64).fill(0.5));
  fill(region, "mask", new Uint8Array([1, 0, 1, 1, 0]));
  fill(region, "scalar", new Float64Array([42]));
  fill(region, "snowman ☃", new Int16Array([-1, -2, -3]));
  await server.api.seal(region.id);
  // To import torch takes seconds; the Python client's tests have it read regions as well.
  const frameworks = process.env.TEST_LONG === undefined ? ["numpy"] : ["numpy", "pt"];
  const args = [region.storage.path, ...frameworks] as const;
  const found = await runScript<Record<string, unknown>>(stockPython, "stock_safetensors.py", ...args);
  expect(Object.keys(found)).toContain("numpy");
  for (const content of Object.values(found)) {
    expect(content).toEqual({
      metadata: readMetadata(region),
      shapes: { weights: [16, 4], mask: [5], scalar: [], nothing: [0, 3], "snowman ☃": [3] },
      dtypes: { weights: "float32", mask: "bool", scalar: "float64", nothing: "int64", "snowman ☃": "int16" },
      sums: { weights: 32, mask: 3, scalar: 42, nothing: 0, "snowman ☃": -6 },
    });
  }
  expect(readMetadata(region)).toEqual({
    format: "pt",
    "tensord.region": region.id,
    "tensord.model": "default",
    "tensord.name": "stock",
    "tensord.instance": server.instance.name,
  });
});

/** Writes a tensor's bytes through the file. */
function fill(region: Region, name: string, values: Float32Array | Float64Array | Int16Array | Uint8Array): void {
  const tensor = region.tensors.find((candidate) => candidate.name === name);
  expect(tensor?.byte_size).toBe(values.byteLength);
  const fd = openSync(region.storage.path, "r+");
  writeSync(fd, Buffer.from(values.buffer), 0, values.byteLength, tensor?.byte_offset ?? 0);
  closeSync(fd);
}
