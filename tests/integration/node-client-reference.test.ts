/** Tensor references and addresses as the Node client reads them: from strangers, so that nothing is taken on trust. */

import { afterAll, describe, expect, test } from "bun:test";
import addresses from "../../clients/addresses.json" with { type: "json" };
import { isTensordError } from "../../clients/node/src/errors.ts";
import { findEndpoint } from "../../clients/node/src/http/endpoint.ts";
import { placeOf, TensorReference } from "../../clients/node/src/regions/reference.ts";
import { checkSchema } from "../harness/answers.ts";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  needsNodeClient,
  type Runtime,
  runProgram,
  runPython,
  runtimes,
  startProgram,
} from "../harness/node-program.ts";

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: a reference to a region that is gone, replaced or sealed is told apart`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("w", new Float32Array([1, 2]), { ttlMs: 600_000 });
        const reference = region.tensor().ref();
        const change = (fields) => TensorReference.parse({ ...reference.toJSON(), ...fields });
        const unaligned = client.open(change({ byte_offset: reference.byteOffset + 1, byte_size: 4, shape: [1] }));
        const [value] = unaligned.array("F32");
        const [expected] = new Float32Array(region.tensor().bytes().slice(1, 5).buffer);
        unaligned.close();
        const writer = client.open(reference, { writable: true });
        await (async () => { writer.array("F32")[0] = 7; })();
        const written = region.tensor().array("F32")[0];
        const { isWritable } = writer;
        writer.close();
        const stale = [{ ino: "1" }, { dev: "888888" }].map((fields) => codeOf(() => client.open(change(fields))));
        for (;;) {
          await collect();
          if (await codeOf(() => region.seal()) === "no error") break;
        }
        const sealed = await codeOf(() => client.open(reference, { writable: true }));
        await client.delete(region);
        tell({
          isCopied: unaligned.isCopied,
          same: value === expected,
          written,
          isWritable,
          closed: await codeOf(() => writer.bytes()),
          stale: await Promise.all(stale),
          sealed,
          gone: await codeOf(() => client.open(reference)),
        });
      `,
    );
    expect(seen).toEqual({
      isCopied: true,
      same: true,
      written: 7,
      isWritable: true,
      closed: "closed",
      stale: ["stale-ref", "stale-ref"],
      sealed: "region-sealed",
      gone: "stale-ref",
    });
  });

  claim(`${runtime}: its references are what the document says, of a tensor and of a slot`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("w", new Float32Array(6), { ttlMs: 600_000 });
        const ring = await client.ring({ slots: 2, slotBytes: 4096 });
        tell([region.tensor().ref(), await ring.put(new Float32Array(6))]);
        ring.close();
      `,
    );
    for (const reference of seen as object[]) checkSchema("TensorReference", reference, "a reference");
    expect(seen).toMatchObject([{ generation: 0 }, { generation: expect.any(Number) }]);
  });

  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: both clients write a reference alike, and open each other's in every form`,
    async () => {
      await using server = await lendServer();
      await using program = startProgram(
        runtime,
        server.env,
        `
          const client = await connect();
          const region = await client.create("w", { dtype: "F32", shape: [2, 3], data: new Float32Array([1, 2, 3, 4, 5, 6]) });
          const ring = await client.ring({ slots: 2, slotBytes: 4096 });
          const slot = await ring.put(new Float32Array([7, 8]));
          tell([JSON.stringify(region.tensor().ref()), JSON.stringify(slot)]);
          const sums = [];
          for (const text of await receive()) {
            const tensor = client.open(TensorReference.parse(text));
            sums.push(tensor.array("F32").reduce((sum, value) => sum + value, 0));
            tensor.close();
          }
          const gpu = { ...slot.toJSON(), storage: "cuda_vmm", path: null, device_uuid: "GPU-0" };
          const unknown = TensorReference.parse(gpu);
          const rings = client.rings();
          tell({ sums, refused: [
            await codeOf(() => client.open(unknown)),
            await codeOf(() => client.openWhenFree(unknown)),
            await codeOf(() => rings.open(unknown)),
            await codeOf(() => client.open(TensorReference.parse({ ...gpu, generation: 0 }))),
          ] });
        `,
      );
      const written = await program.hear<readonly string[]>();
      const formsOf = (text: string) => {
        const { storage: _, device_uuid: __, ...first } = JSON.parse(text);
        return [text, first, { ...JSON.parse(text), v: 2, tomorrow: [1] }].map((form) =>
          typeof form === "string" ? form : JSON.stringify(form),
        );
      };
      const seen = await runPython<{ sums: number[]; written: string[] }>(
        server.env,
        `
        client = tensord.connect()
        sums, written = [], []
        for text in json.loads(r'''${JSON.stringify(written.flatMap(formsOf))}'''):
            reference = tensord.TensorReference.from_json(text)
            written.append(reference.to_json())
            with client.open(reference) as tensor:
                sums.append(float(tensor.numpy().sum()))
        tell({"sums": sums, "written": written})
      `,
      );
      expect(seen.sums).toEqual([21, 21, 21, 15, 15, 15]);
      expect(seen.written).toEqual(written.flatMap((text) => [text, text, text]));
      await program.say(seen.written.concat(written.flatMap(formsOf)));
      expect(await program.hear<unknown>()).toEqual({
        sums: [...seen.sums, ...seen.sums],
        refused: Array(4).fill("feature-unavailable"),
      });
    },
  );

  claim(`${runtime}: a region that stands is not said to be gone while its public name is`, async () => {
    await using server = await lendServer();
    server.log.expect(/^tensord\.region\.relinked$/);
    await using program = startProgram(
      runtime,
      server.env,
      `
        import { unlinkSync } from "node:fs";
        const client = await connect();
        const region = await client.create("w", new Float32Array([1, 2]), { ttlMs: 600_000 });
        const reference = region.tensor().ref();
        const ring = await client.ring({ slots: 2, slotBytes: 64 });
        const slot = await ring.put(new Float32Array([3]));
        const rings = client.rings();
        const seen = [];
        for (let round = 0; round < 10; round++) {
          unlinkSync(reference.path);
          seen.push(await codeOf(async () => (await client.openWhenFree(reference)).close()));
          unlinkSync(reference.path);
          seen.push(await codeOf(async () => (await region.tensor().lockRead()).release()));
          unlinkSync(slot.path);
          seen.push(await codeOf(async () => (await rings.openWhenFree(slot)).close()));
        }
        const other = await client.create("other", new Float32Array(2), { ttlMs: 600_000 });
        const gone = other.tensor().ref();
        await client.delete(other);
        tell({ seen: [...new Set(seen)], gone: await codeOf(() => client.openWhenFree(gone)) });
        await receive();
        // Nobody can say that it stands.
        unlinkSync(reference.path);
        tell(await codeOf(() => client.openWhenFree(reference)));
      `,
    );
    expect(await program.hear<unknown>()).toEqual({ seen: ["no error"], gone: "stale-ref" });
    await server.stop();
    await program.say("stopped");
    expect(await program.hear<unknown>()).toBe("stale-ref");
    await program.end();
  });

  claim(`${runtime}: what stands in the place of a region's file is neither followed nor waited for`, async () => {
    await using server = await lendServer();
    // The region stands, and the broker would hand it out whatever is at another path.
    const seen = await runProgram(
      runtime,
      { ...server.env, TENSORD_BROKER_SOCKET: "/nowhere/broker.sock" },
      `
        import { execFileSync } from "node:child_process";
        import { mkdtempSync, rmSync, symlinkSync, truncateSync } from "node:fs";
        const client = await connect();
        const region = await client.create("w", new Uint8Array(10_000), { ttlMs: 600_000 });
        const reference = region.tensor().ref().toJSON();
        const directory = mkdtempSync("/tmp/tensord-places-");
        const path = directory + reference.path.slice(reference.path.lastIndexOf("/"));
        const open = () => codeOf(() => client.open(TensorReference.parse({ ...reference, path })));
        const codes = [await open()];
        symlinkSync(reference.path, path);
        codes.push(await open());
        rmSync(path);
        execFileSync("mkfifo", [path]);
        codes.push(await open());
        rmSync(directory, { recursive: true });
        truncateSync(reference.path, 5_000);
        tell({ codes, truncated: await client.attach("w").catch(({ code, detail }) => [code, detail]) });
      `,
    );
    expect(seen).toEqual({
      codes: ["stale-ref", "stale-ref", "stale-ref"],
      truncated: ["mapping-failed", expect.stringContaining("has 5000 bytes, want")],
    });
  });
}

const token = "abcdefghijklmnopqrstuvwxyz";
const good = {
  v: 1,
  storage: "shm",
  instance: "a1",
  region: `reg_${token}`,
  path: `/dev/shm/tensord.a1.${token}`,
  device_uuid: null,
  dev: "27",
  ino: "4711",
  byte_offset: 4096,
  byte_size: 24,
  dtype: "F32",
  shape: [2, 3],
  generation: 0,
};

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return isTensordError(error) && error.message.length < 1000 ? error.code : String(error);
  }
  return "no error";
}

describe("a tensor reference", () => {
  test("survives JSON", () => {
    expect(JSON.parse(JSON.stringify(TensorReference.parse(good)))).toEqual(good);
    expect(TensorReference.parse(JSON.stringify(good))).toEqual(TensorReference.parse(good));
    expect(TensorReference.parse({ ...good, dev: "027" }).dev).toBe("27");
  });

  test("may be of a scalar and of nothing", () => {
    for (const [shape, byte_size] of [
      [[], 4],
      [[0, 7], 0],
    ]) {
      expect(TensorReference.parse({ ...good, shape, byte_size }).byteSize).toBe(Number(byte_size));
    }
  });

  // What each one tries is in its name: a type, a bound, or an agreement between two fields.
  const hostile: readonly object[] = [
    { v: 0 },
    { v: -1 },
    { v: 1.5 },
    { v: null },
    { v: true },
    { v: "1" },
    { instance: "b2" },
    { instance: "A1" },
    { instance: 5 },
    { region: "reg_" },
    { region: "../../v1/models" },
    { region: null },
    { path: `tensord.a1.${token}` },
    { path: `/dev/shm/../../etc/tensord.a1.${token}` },
    { path: `/dev//shm/tensord.a1.${token}` },
    { path: `//dev/shm/tensord.a1.${token}` },
    { path: `/dev/shm/tensord.a1.${token}/` },
    { path: `/dev/shm/tensord.a1.${token}\n` },
    { path: `/dev/sh\0m/tensord.a1.${token}` },
    { path: `/${"x/".repeat(4096)}tensord.a1.${token}` },
    { path: "/etc/passwd" },
    { path: `/dev/shm/tensord.a1.${token.toUpperCase()}` },
    { path: `/dev/shm/tensord.a1.${token.slice(1)}` },
    { path: ["/dev/shm"] },
    { dev: 27 },
    { dev: "-1" },
    { dev: "0x1b" },
    { dev: "²⁷" },
    { ino: "" },
    { ino: "9".repeat(21) },
    { ino: String(2n ** 64n) },
    { byte_offset: -4096 },
    { byte_offset: 4096.5 },
    { byte_offset: true },
    { byte_offset: 2 ** 62 },
    { byte_offset: 2 ** 53 - 1 },
    { byte_offset: 4096n },
    { byte_size: 23 },
    { byte_size: "24" },
    { byte_size: -24 },
    { dtype: "F33" },
    { dtype: "float32" },
    { dtype: "constructor" },
    { dtype: ["F32"] },
    { shape: [2, -3] },
    { shape: [-2, -3] },
    { shape: [2, 3.5] },
    { shape: [true, 6] },
    { shape: "23" },
    { shape: { 0: 6 } },
    { shape: Array(65).fill(1) },
    { shape: [2 ** 53, 0] },
    { shape: Array(64).fill(2 ** 53 - 1) },
    { shape: new Array(2) },
    { dtype: "F4", shape: [3], byte_size: 1 },
    { generation: -1 },
    { generation: null },
    { storage: null },
    { storage: ["shm"] },
    { storage: "" },
    { storage: "a".repeat(65) },
    { storage: "cuda vmm" },
    { storage: "cuda_vmm", path: "" },
    { storage: "cuda_vmm", path: "/".repeat(4097) },
    { storage: "cuda_vmm", device_uuid: 0 },
    { storage: "cuda_vmm", device_uuid: "a".repeat(129) },
    { storage: "cuda_vmm", dev: null },
    { storage: "cuda_vmm", byte_size: 23 },
    { device_uuid: "GPU-0" },
    { device_uuid: 0 },
    { path: null, instance: "a/b" },
    { storage: "memfd" },
    { storage: "file" },
    { storage: "memfd", path: null, device_uuid: "GPU-0" },
    { extra: 1 },
    { ["__proto__"]: 1 },
  ];
  for (const change of hostile) {
    test(`is refused with ${JSON.stringify(change, (_, value) => (typeof value === "bigint" ? `${value}n` : value)).slice(0, 60)}`, () => {
      expect(codeOf(() => TensorReference.parse({ ...good, ...change }))).toBe("validation-failed");
    });
  }

  test("to storage of a newer server is passed on, and only mapping it is refused", () => {
    for (const [storage, path] of [
      ["cuda_vmm", null],
      ["SHM", null],
      ["s3", "/data/weights"],
    ]) {
      const newer = { ...good, storage, path, device_uuid: "GPU-0" };
      const reference = TensorReference.parse(newer);
      expect(reference).toMatchObject({ storage, path, deviceUuid: "GPU-0" });
      expect(JSON.stringify(reference)).toBe(JSON.stringify(newer));
      expect(() => placeOf(reference)).toThrow(`its storage is ${storage}, want shm`);
      expect(codeOf(() => placeOf(reference))).toBe("feature-unavailable");
    }
  });

  test("is read in its first form, which had host memory only", () => {
    const { storage: _, device_uuid: __, ...first } = good;
    expect(TensorReference.parse(first).toJSON()).toEqual(TensorReference.parse(good).toJSON());
    expect(codeOf(() => TensorReference.parse({ ...first, v: 2 }))).toBe("validation-failed");
  });

  test("of a later version is read by the fields of this one", () => {
    const later = { ...good, v: 7, stride: [3, 1] };
    expect(TensorReference.parse(later).toJSON()).toEqual(TensorReference.parse(good).toJSON());
    for (const field of Object.keys(good)) {
      const rest = Object.fromEntries(Object.entries(later).filter(([key]) => key !== field));
      expect([field, codeOf(() => TensorReference.parse(rest))]).toEqual([field, "validation-failed"]);
    }
    expect(codeOf(() => TensorReference.parse({ ...later, byte_size: 23 }))).toBe("validation-failed");
  });

  test("is refused without one of its fields", () => {
    for (const field of Object.keys(good)) {
      const rest = Object.fromEntries(Object.entries(good).filter(([key]) => key !== field));
      expect([field, codeOf(() => TensorReference.parse(rest))]).toEqual([field, "validation-failed"]);
    }
  });

  test("is refused as text that is none", () => {
    const spaced = JSON.stringify(good) + " ".repeat(65_536);
    for (const text of ["", "null", "[]", "5", '"x"', "{", "[".repeat(60_000), spaced, '{"__proto__": {}}']) {
      expect([text.slice(0, 20), codeOf(() => TensorReference.parse(text))]).toEqual([
        text.slice(0, 20),
        "validation-failed",
      ]);
    }
  });
});

describe("the server's address", () => {
  test("is the argument, else TENSORD_URL, else the instance's socket", () => {
    const env = { TENSORD_URL: "http://[::1]:80", TENSORD_INSTANCE: "a1", TENSORD_SHM_DIR: "/mnt/shm//" };
    expect(findEndpoint("unix:///run/t%20x.sock", env)).toMatchObject({ path: "/run/t%20x.sock" });
    expect(findEndpoint(undefined, env)).toMatchObject({ host: "::1", port: 80, url: "http://[::1]:80" });
    expect(findEndpoint(undefined, { ...env, TENSORD_URL: "" })).toMatchObject({
      url: "unix:///mnt/shm/tensord.a1/http.sock",
    });
    expect(findEndpoint(undefined, {})).toMatchObject({ path: "/dev/shm/tensord.default/http.sock" });
  });

  test("means the same in both clients", () => {
    for (const [given, url] of Object.entries(addresses.taken)) {
      expect([given, findEndpoint(given).url]).toEqual([given, url]);
      expect([given, findEndpoint(undefined, { TENSORD_URL: given }).url]).toEqual([given, url]);
    }
    expect(findEndpoint("unix:/run/t.sock")).toMatchObject({ path: "/run/t.sock" });
    expect(findEndpoint("http://[::1]:7411")).toMatchObject({ host: "::1", port: 7411 });
    expect(findEndpoint(undefined, { TENSORD_URL: " \n" }).url).toBe("unix:///dev/shm/tensord.default/http.sock");
  });

  test("is refused if it is none", () => {
    for (const url of [...addresses.refused, `unix:///${"x".repeat(107)}`]) {
      expect([url, codeOf(() => findEndpoint(url, {}))]).toEqual([url, "validation-failed"]);
    }
    for (const TENSORD_INSTANCE of ["A", "../x", "x".repeat(33)]) {
      expect(codeOf(() => findEndpoint(undefined, { TENSORD_INSTANCE }))).toBe("validation-failed");
    }
  });
});
