/** Whole files and ranges over real sockets, to readers that know HTTP and nothing of tensord: fsspec, curl, wget, aria2c. */

import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import { countRegionFiles, startDataServer, targetOf, transports } from "../harness/data-server.ts";
import { DataSocket } from "../harness/data-socket.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { writeContent } from "../harness/instance-content.ts";
import { needsStockPython, stockPython, testWith } from "../harness/instance-needs.ts";
import type { TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { within } from "../harness/server-wait.ts";
import { runScript } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
/** More than is read into memory, and no multiple of a page. */
const largeBytes = 5 * MiB + 4097;
const byName = "/v1/models/default/regions/weights/file/weights.safetensors";

/** One for all: what a test leaves behind, the end of the file finds. */
let server: TestServer;

beforeAll(async () => {
  server = await startDataServer();
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  assertNothingLeft();
});

const fileOf = ({ id }: Region) => `/v1/regions/${id}/file/weights.safetensors`;

/** A sealed region with content. */
async function createSealed(byteSize: number, name?: string): Promise<Region> {
  const named = name === undefined ? {} : { name };
  const region = await server.api.create({ byte_size: byteSize, ttl_ms: hour, ...named });
  writeContent(region, 5);
  return server.api.seal(region.id);
}

for (const transport of transports) {
  describe(`over ${transport}`, () => {
    testWith()(
      "a connection is kept for as many ranges as are read at once, whatever else is asked on it",
      async () => {
        const region = await createSealed(largeBytes);
        const file = readFileSync(region.storage.path);
        using socket = new DataSocket(await targetOf(server, transport));
        for (const [first, last] of [
          [0, 7],
          [8, 4095],
          [4096, 4096 + limits.downloadCopyBytes - 1],
          [file.length - 1, file.length - 1],
        ] as const) {
          await socket.ask("GET", fileOf(region), `Range: bytes=${first}-${last}`);
          const { status, headers, body } = await socket.answer();
          const range = headers.get("content-range");
          expect({ status, range }).toEqual({ status: 206, range: `bytes ${first}-${last}/${file.length}` });
          expect(body.equals(file.subarray(first, last + 1))).toBeTrue();
        }
        await socket.ask("GET", fileOf(region), "Range: bytes=0-7,4096-4099");
        const { headers, body } = await socket.answer();
        expect(headers.get("content-type")).toStartWith("multipart/byteranges; boundary=");
        expect(body.includes(file.subarray(4096, 4100))).toBeTrue();
        for (const [header, status] of [
          [`If-None-Match: "${region.id}"`, 304],
          ['If-Match: "other"', 412],
          [`Range: bytes=${file.length}-`, 416],
          ["Range: bytes=0-0", 206],
        ] as const) {
          await socket.ask("GET", fileOf(region), header);
          expect((await socket.answer()).status).toBe(status);
        }
        expect(socket.waitingBytes).toBe(0);
        expect(countRegionFiles(server)).toBe(0);
      },
    );

    testWith()("what is more than is read at once ends its connection, and is what was asked for", async () => {
      const region = await createSealed(largeBytes);
      const file = readFileSync(region.storage.path);
      const target = await targetOf(server, transport);
      const all = [200, file] as const;
      for (const [headers, [status, bytes]] of [
        [[], all],
        [
          [`Range: bytes=1-${2 * MiB}`, `If-Range: "${region.id}"`],
          [206, file.subarray(1, 2 * MiB + 1)],
        ],
        // A range of something else, of another coding, of a time, of another unit, and more of them than are sent in parts.
        [["Range: bytes=1-4", 'If-Range: "other"'], all],
        [["Range: bytes=1-4", `If-Range: W/"${region.id}"`], all],
        [["Range: bytes=1-4", "If-Range: Sat, 28 Nov 2099 00:00:00 GMT"], all],
        [["Range: rows=1-4"], all],
        [[`Range: bytes=0-${MiB},${2 * MiB}-${3 * MiB}`], all],
      ] as const) {
        using socket = new DataSocket(target);
        await socket.ask("GET", fileOf(region), ...headers);
        const answer = await socket.answer();
        expect({ headers, status: answer.status, isRight: answer.body.equals(bytes) }).toEqual({
          headers,
          status,
          isRight: true,
        });
        expect((await socket.last()).length).toBe(0);
      }
    });

    testWith()("HEAD says how long it is and that it has ranges, and a delete after it frees at once", async () => {
      for (const byteSize of [64, largeBytes]) {
        const region = await createSealed(byteSize);
        const unix = transport === "TCP" ? {} : { unix: server.instance.socket };
        const { status, headers } = await fetch(`${await server.readUrl()}${fileOf(region)}`, {
          method: "HEAD",
          ...unix,
        });
        expect({ status, length: headers.get("content-length"), ranges: headers.get("accept-ranges") }).toEqual({
          status: 200,
          length: String(region.storage.byte_size),
          ranges: "bytes",
        });
        expect(await server.api.delete(region.id)).toMatchObject({ state: "deleted" });
      }
    });

    testWith()("a delete right after a download is not kept waiting by the download's own lease", async () => {
      const target = await targetOf(server, transport);
      for (const byteSize of [64, 2 * MiB, 64 * MiB]) {
        const region = await createSealed(byteSize);
        using socket = new DataSocket(target);
        await socket.ask("GET", fileOf(region));
        expect((await socket.answer()).status).toBe(200);
        expect(await server.api.delete(region.id)).toMatchObject({ state: "deleted" });
      }
      expect(countRegionFiles(server)).toBe(0);
    });

    testWith()("bytes that a worker took away are an error before the head, and the connection goes on", async () => {
      const region = await server.api.create({ byte_size: largeBytes, ttl_ms: hour });
      using socket = new DataSocket(await targetOf(server, transport));
      const ask = async () => {
        await socket.ask("GET", fileOf(region), "Range: bytes=0-7");
        return (await socket.answer()).status;
      };
      expect(await ask()).toBe(206);
      truncateSync(region.storage.path, 4);
      expect(await ask()).toBe(500);
      truncateSync(region.storage.path, region.storage.byte_size);
      expect(await ask()).toBe(206);
    });
  });
}

testWith(needsStockPython)(
  "fsspec and safetensors read a region's header, tensors and whole file by its name",
  async () => {
    const region = await server.api.create({
      name: "weights",
      tensors: [
        { name: "first", dtype: "F64", shape: [2, 3] },
        { name: "big", dtype: "F32", shape: [1024, 1024] },
        { name: "none", dtype: "F32", shape: [0, 4] },
      ],
      ttl_ms: hour,
    });
    const url = await server.readUrl();
    for (const [name, bytes] of [
      ["first", new Float64Array([1, 2, 3, 4, 5, 6.5])],
      ["big", new Float32Array(2 ** 20).fill(0.5)],
    ] as const) {
      const put = await fetch(`${url}/v1/regions/${region.id}/data?tensor=${name}`, { method: "PUT", body: bytes });
      expect(put.status).toBe(200);
    }
    await server.api.seal(region.id);
    const file = readFileSync(region.storage.path);
    const sums = { first: 21.5, big: 524_288, none: 0 };
    // Blocks that are read at once, and fsspec's own.
    const found = await runScript(
      stockPython,
      "remote_safetensors.py",
      `${url}${byName}`,
      `${64 * 1024}`,
      `${5 * MiB}`,
    );
    const expected = {
      size: file.length,
      sums,
      whole: sums,
      shapes: { first: [2, 3], big: [1024, 1024], none: [0, 4] },
      ends: [file.subarray(0, 8).toString("hex"), file.subarray(-8).toString("hex")],
    };
    expect(found).toEqual([expected, expected]);
    await server.api.delete(region.id);
  },
);

/** Command lines that go on with a file of which the first half is there; `{}` is where it lies. */
const resumers = {
  curl: ["curl", "--silent", "--show-error", "--fail", "--continue-at", "-", "--output", "{}/weights.safetensors"],
  wget: ["wget", "--quiet", "--continue", "--directory-prefix", "{}"],
  aria2c: [
    "aria2c",
    "--quiet",
    "--continue=true",
    "--split=4",
    "--min-split-size=1M",
    "--file-allocation=none",
    "--dir",
    "{}",
  ],
};

for (const [tool, command] of Object.entries(resumers)) {
  const needsTool = Bun.which(tool) === null ? `needs ${tool}` : undefined;
  testWith(needsTool)(`${tool} downloads a file, and goes on with half of one`, async () => {
    const region = await createSealed(largeBytes, "weights");
    const file = readFileSync(region.storage.path);
    const url = `${await server.readUrl()}${byName}`;
    const directory = mkdtempSync(join(tmpdir(), "tensord-readers-"));
    try {
      const path = join(directory, "weights.safetensors");
      for (const half of [undefined, file.subarray(0, file.length / 2)]) {
        if (half !== undefined) writeFileSync(path, half);
        const words = [...command.map((word) => word.replace("{}", directory)), url];
        const child = Bun.spawn(words, { stdout: "ignore", stderr: "pipe" });
        const [said, status] = await within(`${tool} ends`, Promise.all([child.stderr.text(), child.exited]));
        expect({ said, status }).toEqual({ said: "", status: 0 });
        expect(readFileSync(path).equals(file)).toBeTrue();
        rmSync(path);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
    expect(await server.api.delete(region.id)).toMatchObject({ state: "deleted" });
  });
}

testWith(Bun.which("curl") === null ? "needs curl" : undefined)(
  "curl asks for a range, and for several, whose parts it prints as they come",
  async () => {
    const region = await createSealed(64);
    const file = readFileSync(region.storage.path);
    const url = `${await server.readUrl()}${fileOf(region)}`;
    const ask = async (range: string) => {
      const child = Bun.spawn(["curl", "--silent", "--fail", "--range", range, url], { stdout: "pipe" });
      return Buffer.from(await within("curl ends", child.stdout.bytes()));
    };
    expect((await ask("0-7")).equals(file.subarray(0, 8))).toBeTrue();
    expect((await ask("-64")).equals(file.subarray(-64))).toBeTrue();
    const parts = (await ask("0-7,-64")).toString("latin1");
    expect(parts).toContain(`\r\n\r\n${file.toString("latin1", 0, 8)}\r\n--`);
    expect(parts).toContain(`\r\n\r\n${file.subarray(-64).toString("latin1")}\r\n--`);
  },
);
