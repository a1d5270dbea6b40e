/** Objects of an S3 service become regions, whatever the service does: whole, or not at all, with a problem that says what to do. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { fileLimits } from "../../src/loaders/limits.ts";
import { type AppOptions, type TestApp, until, withApp } from "../harness/app.ts";
import { tinyPath } from "../harness/load.ts";
import { ggufFile, npyFile, npyHeader, safetensorsFile } from "../harness/model-files.ts";
import { type Behave, bucket, refusal, S3Service } from "../harness/s3-service.ts";
import { load, loadFile } from "./support/load.ts";
import type { Operation } from "./support/operations.ts";

const tiny = readFileSync(tinyPath);

/** A test's body with an app and a service whose objects it loads. */
function withService(use: (app: TestApp, service: S3Service) => Promise<void>, options: AppOptions = {}) {
  return async function useService() {
    await using service = await S3Service.start();
    await withApp((app) => use(app, service), { modelRoots: [`s3://${bucket}/m`], s3: service.options, ...options })();
  };
}

function tensorFile(data: Uint8Array, name = "w"): Buffer {
  const header = { [name]: { dtype: "U8", shape: [data.length], data_offsets: [0, data.length] } };
  return safetensorsFile(JSON.stringify(header), data);
}

function counting(byteSize: number): Buffer {
  return Buffer.alloc(byteSize, Buffer.from(Array.from({ length: 251 }, (_, at) => at)));
}

describe("an object", () => {
  for (const storage of ["shm", "memfd", "heap"]) {
    test(
      `is in ${storage} as it was, sealed, with its tensors, a checksum, and its URI`,
      withService(async (app, service) => {
        const uri = service.put("m/tiny.safetensors", tiny);
        const region = await app.get(await load(app, uri, { storage }));
        expect(region).toMatchObject({ name: "tiny", state: "sealed", storage: { byte_size: tiny.length } });
        expect(region.labels).toEqual({ "tensord.file": uri });
        expect(await app.verify(region.id)).toMatchObject({ ok: true });
        const w = await app.request("GET", `/v1/regions/${region.id}/data?tensor=w`);
        expect(Buffer.from(w.body as Uint8Array).equals(tiny.subarray(-19, -3))).toBeTrue();
      }),
    );
  }

  test(
    "of several ranges is asked for at a time, counts what it has done, and is loaded once",
    withService(async (app, service) => {
      const content = tensorFile(counting(fileLimits.objectRangeBytes + 70_000));
      const uri = service.put("m/w.safetensors", content);
      const operation = await loadFile(app, uri);
      expect(operation).toMatchObject({ kind: "load", state: "succeeded", source: uri });
      expect(operation.done_bytes).toBe(operation.total_bytes);
      const region = await app.get(operation.region as string);
      expect(readFileSync(region.storage.path as string).equals(content)).toBeTrue();
      expect(await app.verify(region.id)).toMatchObject({ ok: true });
      const before = service.asked.length;
      expect(await load(app, uri)).toBe(region.id);
      // Its header alone is read again.
      expect(service.asked.length).toBe(before + 1);
      const sizes = service.asked.map(({ first, last }) => last - first + 1);
      expect(Math.max(...sizes)).toBe(fileLimits.objectRangeBytes);
      expect(service.asked.every(({ query }) => query.has("X-Amz-Signature"))).toBeTrue();
    }),
  );

  test(
    "is copied, whatever mode is left to the server, and cannot be mapped",
    withService(async (app, service) => {
      const uri = service.put("m/tiny.safetensors", tiny);
      expect(await loadFile(app, uri, { mode: "auto" })).toMatchObject({
        mode: "copy",
        reason: "it is an object, and no file",
      });
      expect((await loadFile(app, uri, { mode: "map" })).problem).toMatchObject({
        code: "unsupported-format",
        detail: expect.stringContaining("it is an object, and no file, and so it cannot be mapped"),
      });
    }),
  );

  const token = "t".repeat(40);
  const roots = [`s3://${bucket}/m/mine`, `s3://${bucket}/elsewhere`];
  test(
    "is loaded for a token that is held to its prefix, and no other is",
    withService(
      async (app, service) => {
        const wait = { headers: { prefer: "wait=60", authorization: `Bearer ${token}` } };
        const loads = (uri: string) =>
          app.request("POST", "/v1/models/default/load", { uri, ttl_ms: 60_000 }, wait).then(({ body }) => body);
        expect(await loads(service.put("m/mine/a.safetensors", tiny))).toMatchObject({ state: "succeeded" });
        for (const key of ["m/b.safetensors", "m/mine-not/b.safetensors", "elsewhere/b.safetensors"]) {
          expect(await loads(service.put(key, tiny))).toMatchObject({ code: "forbidden" });
        }
      },
      { tokens: [{ name: "w", role: "worker", token, roots }] },
    ),
  );

  for (const [suffix, pack] of [
    ["gz", gzipSync],
    ["zst", zstdCompressSync],
  ] as const) {
    test(
      `that is packed as ${suffix} is in the region as it was before`,
      withService(async (app, service) => {
        // Of what packs badly, so that it takes more than one block.
        const data = Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)));
        const content = tensorFile(
          Buffer.concat(Array.from({ length: 12 }, (_, at) => data.map((byte) => byte ^ (at * 37)))),
        );
        const uri = service.put(`m/w.safetensors.${suffix}`, pack(content));
        const region = await app.get(await load(app, uri));
        expect(region.name).toBe("w");
        expect(readFileSync(region.storage.path as string).equals(content)).toBeTrue();
        expect(await app.verify(region.id)).toMatchObject({ ok: true });
      }),
    );
  }

  test(
    "of any format is kept byte for byte",
    withService(async (app, service) => {
      const gguf = ggufFile({
        tensors: [{ name: "t", type: 0, extents: [2, 2], begin: 0 }],
        data: Buffer.alloc(16, 7),
      });
      const npy = npyFile(npyHeader("'<f4'", "(3,)"), Buffer.alloc(12, 1));
      const bytes = counting(1000);
      for (const [key, content, body] of [
        ["m/a.gguf", gguf, {}],
        ["m/b.npy", npy, {}],
        ["m/c.onnx", bytes, { format: "raw" }],
      ] as const) {
        const region = await app.get(await load(app, service.put(key, content), body));
        expect(region.storage.format).toBe("raw");
        expect(readFileSync(region.storage.path as string).equals(content)).toBeTrue();
        expect(region.tensors).toHaveLength(1);
      }
    }),
  );

  test(
    "in several files is one region by its index, whose small tensors are asked for together",
    withService(async (app, service) => {
      const weight_map: Record<string, string> = {};
      for (const shard of ["a", "b"]) {
        const names = Array.from({ length: 300 }, (_, at) => `${shard}.${at}`);
        const header = Object.fromEntries(
          names.map((name, at) => [name, { dtype: "U8", shape: [100], data_offsets: [at * 100, at * 100 + 100] }]),
        );
        service.put(
          `m/l/${shard}.safetensors`,
          safetensorsFile(JSON.stringify(header), Buffer.concat(names.map((_, at) => Buffer.alloc(100, at % 100)))),
        );
        for (const name of names) weight_map[name] = `${shard}.safetensors`;
      }
      const uri = service.put("m/l/model.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map }));
      const region = await app.get(await load(app, uri));
      expect(region).toMatchObject({ name: "model", tensor_count: 600 });
      expect(service.asked.length).toBeLessThan(12);
      for (const [name, at] of [
        ["a.0", 0],
        ["b.255", 55],
        ["b.299", 99],
      ] as const) {
        const data = await app.request("GET", `/v1/regions/${region.id}/data?tensor=${name}`);
        expect([name, ...Buffer.from(data.body as Uint8Array)]).toEqual([name, ...Buffer.alloc(100, at)]);
      }
    }),
  );

  test(
    "is no way to another folder for an index",
    withService(async (app, service) => {
      service.put("secret.safetensors", tiny);
      const weight_map = { w: "..\\..\\secret.safetensors" };
      const uri = service.put("m/l/model.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map }));
      const { problem } = await loadFile(app, uri);
      expect(problem).toMatchObject({ code: "invalid-model-file" });
      expect(problem?.detail).toContain("and its key begins or ends with a slash, or has a backslash, want files");
      expect(service.asked).toHaveLength(1);
    }),
  );

  test(
    "that has changed is another version, beside what it was",
    withService(async (app, service) => {
      const old = await load(app, service.put("m/w.safetensors", tensorFile(Buffer.alloc(10, 1))));
      const fresh = await load(app, service.put("m/w.safetensors", tensorFile(Buffer.alloc(10, 2))));
      expect(fresh).not.toBe(old);
      expect(await app.ok<{ id: string }>(200, "GET", "/v1/models/default/regions/w")).toMatchObject({ id: fresh });
    }),
  );

  test(
    "is asked for by its key as it stands, whatever is in it",
    withService(async (app, service) => {
      for (const key of ["m/a b+c%20d?e#f=ü&.safetensors", "m//twice//.safetensors", "m/~!*'()@:$,;%2e%2e/😀"]) {
        await load(app, service.put(key, tiny), { name: "odd" });
        expect(service.asked.at(-1)?.key).toBe(key);
      }
    }),
  );

  test("of a public bucket is asked for without a signature", async () => {
    await using service = await S3Service.start();
    const s3 = { ...service.options, credentials: undefined };
    await withApp(
      async (app) => {
        await load(app, service.put("m/ü b.safetensors", tiny));
        expect(service.asked.every(({ query }) => query.size === 0)).toBeTrue();
        service.behave = () => refusal(403, "AccessDenied");
        const { problem } = await loadFile(app, service.put("m/w.safetensors", tiny));
        expect(problem?.detail).toContain("the server, which has no credentials, may not read it (403 AccessDenied)");
      },
      { modelRoots: [`s3://${bucket}/m`], s3 },
    )();
  });
});

describe("a service that", () => {
  const whole = tensorFile(counting(200_000));
  const key = "m/w.safetensors";
  const uri = `s3://${bucket}/${key}`;
  /** Behaves so once the header was read. */
  const later =
    (behave: Behave): Behave =>
    (asked, answer) =>
      asked.number === 1 ? answer : behave(asked, answer);

  const passing: readonly [what: string, behave: Behave][] = [
    ["is overloaded for a moment", (asked, answer) => (asked.number % 2 === 1 ? refusal(503, "SlowDown") : answer)],
    ["asks for fewer requests", (asked, answer) => (asked.number === 2 ? refusal(429, "TooManyRequests") : answer)],
    ["makes a mistake", (asked, answer) => (asked.number === 1 ? refusal(500, "InternalError") : answer)],
    [
      "breaks off in the middle of ranges",
      (asked, answer) => (asked.number % 2 === 0 ? { ...brokenOff(answer), end: "close" } : answer),
    ],
    ["stalls once", (asked, answer) => (asked.number === 2 ? { ...brokenOff(answer), end: "stall" } : answer)],
  ];
  for (const [what, behave] of passing) {
    test(`${what} is asked again`, async () => {
      await using service = await S3Service.start();
      service.put(key, whole);
      service.behave = behave;
      await withApp(
        async (app) => {
          const region = await app.get(await load(app, uri));
          expect(readFileSync(region.storage.path as string).equals(whole)).toBeTrue();
          expect(await app.verify(region.id)).toMatchObject({ ok: true });
        },
        { modelRoots: [`s3://${bucket}`], s3: { ...service.options, stallMs: 3_000 } },
      )();
    });
  }

  for (const [what, byteSize] of [
    ["begins no answer", undefined],
    ["stops in the middle of a range", 1000],
  ] as const) {
    test(`${what}, again and again, is given up`, async () => {
      await using service = await S3Service.start();
      service.put(key, whole);
      service.behave = later((_, answer) => ({
        ...(byteSize === undefined ? { ...answer, status: 100, headers: {}, body: "" } : brokenOff(answer, byteSize)),
        end: "stall",
      }));
      await withApp(
        async (app) => {
          const before = app.footprint();
          const { problem } = await loadFile(app, uri);
          expect(problem).toMatchObject({ code: "source-unavailable" });
          expect(problem?.detail).toContain("nothing came from the service for 0.2 s, 5 times in a row");
          expect(app.footprint()).toEqual(before);
        },
        { modelRoots: [`s3://${bucket}`], s3: { ...service.options, stallMs: 200 } },
      )();
    });
  }

  test("sends a byte now and then, and no end, is given up", async () => {
    await using service = await S3Service.start();
    service.put(key, whole);
    service.behave = later((_, answer) => ({ ...brokenOff(answer, 10), end: "drip" }));
    await withApp(
      async (app) => {
        const { problem } = await loadFile(app, uri);
        expect(problem).toMatchObject({ code: "source-unavailable" });
        expect(problem?.detail).toContain("the service takes more than 0.3 s for a range, 5 times in a row");
      },
      { modelRoots: [`s3://${bucket}`], s3: { ...service.options, rangeMs: 300 } },
    )();
  });

  const failing: readonly [what: string, code: string, reason: string, behave: Behave][] = [
    ["does not have it", "invalid-model-file", "it is not there", () => refusal(404, "NoSuchKey")],
    ["does not have the bucket", "invalid-model-file", "there is no bucket models", () => refusal(404, "NoSuchBucket")],
    ["denies it", "io-error", "may not read it (403 AccessDenied)", () => refusal(403, "AccessDenied")],
    [
      "denies it in the middle",
      "io-error",
      "may not read it (403 ExpiredToken)",
      later(() => refusal(403, "ExpiredToken")),
    ],
    [
      "is overloaded for long",
      "source-unavailable",
      "answers 503 SlowDown, 5 times in a row",
      () => refusal(503, "SlowDown"),
    ],
    [
      "ends the object early",
      "source-unavailable",
      "5 times in a row",
      later((_, answer) => ({ ...answer, body: "", end: "close" })),
    ],
    [
      "breaks off before each byte",
      "source-unavailable",
      "cannot be reached (ECONNRESET), 5 times in a row",
      later((_, answer) => ({
        ...answer,
        headers: { ...answer.headers, "content-length": "100" },
        body: "",
        end: "close",
      })),
    ],
    [
      "answers a range with the whole",
      "io-error",
      "answers a range with the whole object",
      later((_, answer) => ({ ...answer, status: 200, body: whole })),
    ],
    [
      "answers the beginning with the whole",
      "io-error",
      "whole object",
      (_, answer) => ({ ...answer, status: 200, body: whole }),
    ],
    [
      "answers another range",
      "io-error",
      "another range",
      later((_, answer) => ({
        ...answer,
        headers: { ...answer.headers, "content-range": `bytes 0-9/${whole.length}` },
      })),
    ],
    [
      "answers a shorter range",
      "io-error",
      "another range",
      later(({ first }, answer) => ({
        ...answer,
        headers: { ...answer.headers, "content-range": `bytes ${first}-${first}/${whole.length}` },
        body: "x",
      })),
    ],
    [
      "says no range",
      "io-error",
      "does not say which range",
      (_, { headers: { "content-range": _range, ...headers }, ...answer }) => ({ ...answer, headers }),
    ],
    [
      "tells no ETag",
      "io-error",
      "tells no ETag",
      (_, { headers: { etag: _etag, ...headers }, ...answer }) => ({ ...answer, headers }),
    ],
    [
      "sends more than a range has",
      "io-error",
      "answers more than",
      later((_, { headers, ...answer }) => ({
        ...answer,
        headers: { ...headers, "content-length": String(answer.body.length + 9) },
        body: Buffer.concat([answer.body as Uint8Array, Buffer.alloc(9)]),
      })),
    ],
    [
      "sends elsewhere",
      "io-error",
      "sends on to another address, which is not followed",
      () => refusal(307, "TemporaryRedirect", { location: "http://127.0.0.1:1/secret" }),
    ],
    [
      "has the bucket in another region",
      "io-error",
      "its bucket lies in the region eu-north-1, and us-east-1 was asked",
      () => refusal(301, "PermanentRedirect", { "x-amz-bucket-region": "eu-north-1" }),
    ],
    ["answers what is no HTTP status of S3", "io-error", "answers 418 Teapot", () => refusal(418, "Teapot")],
    [
      "has another object by now, and says so",
      "invalid-model-file",
      "it changed while it was loaded",
      later(() => refusal(412, "PreconditionFailed")),
    ],
    [
      "has another object by now, and knows no If-Match",
      "invalid-model-file",
      "it changed while it was loaded",
      later((_, answer) => ({ ...answer, headers: { ...answer.headers, etag: '"another"' } })),
    ],
    [
      "has a longer object of the same ETag by now",
      "invalid-model-file",
      "it changed while it was loaded",
      later(({ first, last }, answer) => ({
        ...answer,
        headers: { ...answer.headers, "content-range": `bytes ${first}-${last}/${whole.length + 1}` },
      })),
    ],
    [
      "has lost it by now",
      "invalid-model-file",
      "it changed while it was loaded",
      later(() => refusal(404, "NoSuchKey")),
    ],
    [
      "has it empty by now",
      "invalid-model-file",
      "it changed while it was loaded",
      later(() => refusal(416, "InvalidRange")),
    ],
    ["has nothing in it", "invalid-model-file", "it is empty", () => refusal(416, "InvalidRange")],
    [
      "changes it at the very end",
      "invalid-model-file",
      "it changed while it was loaded",
      ({ first, last }, answer) => (last === first ? refusal(412, "PreconditionFailed") : answer),
    ],
  ];
  // Several after the other on one app, which is what takes time.
  for (let at = 0; at < failing.length; at += 6) {
    const some = failing.slice(at, at + 6);
    const names = some.map(([what]) => what).join("; or ");
    test(`${names}, fails the load by its URI and the reason, and leaves nothing`, async () => {
      await using service = await S3Service.start();
      service.put(key, whole);
      await withApp(
        async (app) => {
          await load(app, service.put("m/first.safetensors", tiny));
          const before = app.footprint();
          for (const [what, code, reason, behave] of some) {
            service.asked.length = 0;
            service.behave = behave;
            const { state, region, problem } = await loadFile(app, uri);
            expect({ what, state, region, code: problem?.code }).toEqual({ what, state: "failed", region: null, code });
            expect(problem?.detail).toStartWith(`Cannot load "${uri}": `);
            expect(problem?.detail, what).toContain(reason);
            expect(problem?.hint, what).toBeTruthy();
            expect(JSON.stringify(problem), what).not.toMatch(/Signature=|test-secret|TESTKEY|127\.0\.0\.1/);
            expect(app.footprint(), what).toEqual(before);
          }
          service.behave = undefined;
          await load(app, uri);
        },
        { modelRoots: [`s3://${bucket}`], s3: service.options },
      )();
    });
  }

  test("is not there at all fails the load, and is tried again by a later one", async () => {
    const service = await S3Service.start();
    const { options } = service;
    await service[Symbol.asyncDispose]();
    await withApp(
      async (app) => {
        const { problem } = await loadFile(app, uri);
        expect(problem).toMatchObject({ code: "source-unavailable", status: 502 });
        expect(problem?.detail).toBe(
          `Cannot load "${uri}": the service cannot be reached (ECONNREFUSED), 5 times in a row`,
        );
      },
      { modelRoots: [`s3://${bucket}`], s3: options },
    )();
  });
});

describe("a load that is cancelled", () => {
  for (const [when, number] of [
    ["while the service does not answer at all", 1],
    ["in the middle of its bytes", 2],
  ] as const) {
    test(
      `${when} ends at once, and leaves nothing, neither a connection`,
      withService(async (app, service) => {
        const before = app.footprint();
        const uri = service.put("m/w.safetensors", tensorFile(counting(200_000)));
        service.behave = (asked, answer) => (asked.number < number ? answer : { ...brokenOff(answer), end: "stall" });
        const asked = { uri, ttl_ms: 600_000 };
        const { id } = await app.ok<Operation>(202, "POST", "/v1/models/default/load", asked);
        await until("it waits for the service", () => service.asked.length >= number);
        expect(await app.ok(200, "DELETE", `/v1/operations/${id}`)).toMatchObject({ state: "cancelled", region: null });
        expect(app.footprint()).toEqual(before);
        await until("its connections are closed", () => service.connections === 0);
        service.behave = undefined;
        await load(app, uri);
      }),
    );
  }
});

/** The same, but that its body ends in the middle, or after so many bytes. */
function brokenOff<Of extends { headers: Readonly<Record<string, string>>; body: Uint8Array | string }>(
  answer: Of,
  after?: number,
): Of {
  const { headers, body } = answer;
  const part = Buffer.from(body as Uint8Array).subarray(0, after ?? Math.ceil(body.length / 2));
  return { ...answer, headers: { ...headers, "content-length": String(body.length) }, body: part };
}
