/** Sealing makes a region final: its mode, its checksum, and what can still be found out about its bytes. */

import { afterAll, describe, expect, test } from "bun:test";
import { lstatSync, unlinkSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { until, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { onesChecksums, patternChecksums, toPattern } from "./support/checksum.ts";
import { Intruder, lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

const apps = new LentApps();
afterAll(() => apps.end());

function modeOf(path: string): number {
  return lstatSync(path).mode & 0o7777;
}

describe("a sealed region", () => {
  test(
    "says when, has no checksum unless one was asked for, and keeps the rest",
    apps.with(async (app) => {
      const open = await app.create({ name: "weights", labels: { a: "b" } });
      const before = Date.now();
      const sealed = await app.seal(open.id);
      expect(Date.parse(sealed.sealed_at ?? "")).toBeWithin(before, Date.now() + 1);
      const { sealed_at: _, state, revision, last_used_at: __, ...rest } = sealed;
      expect({ state, revision, checksum: sealed.checksum }).toEqual({ state: "sealed", revision: 2, checksum: null });
      const { sealed_at: ___, state: ____, revision: _____, last_used_at: ______, ...before_ } = open;
      expect(rest).toEqual(before_);
    }),
  );

  test(
    "is read-only by its mode, with the mark of a seal",
    apps.with(async (app) => {
      const { id, storage } = await app.create();
      expect(modeOf(storage.path)).toBe(0o660);
      await app.seal(id);
      expect(modeOf(storage.path)).toBe(0o1540);
    }),
  );

  test(
    "stays writable by its mode for stock readers if asked for, with the mark all the same",
    apps.with(async (app) => {
      const { id, storage } = await app.create();
      await app.seal(id, { stock_writable: true });
      expect(modeOf(storage.path)).toBe(0o1760);
    }),
  );

  test(
    "cannot be sealed again, nor otherwise",
    apps.with(async (app) => {
      const { id, storage } = await app.create();
      await app.seal(id);
      await app.refused("region-sealed", "POST", `/v1/regions/${id}/seal`, { checksum: true, stock_writable: true });
      expect(modeOf(storage.path)).toBe(0o1540);
      expect(await app.get(id)).toMatchObject({ revision: 2, checksum: null });
    }),
  );
});

describe("a seal", () => {
  for (const [what, headers] of [
    ["nothing", {}],
    ["a content type and nothing", { "content-type": "application/json" }],
  ] as const) {
    test(
      `by a request of ${what} is one without a checksum, for readers only`,
      apps.with(async (app) => {
        const { id, storage } = await app.create();
        const { status, body } = await app.request("POST", `/v1/regions/${id}/seal`, undefined, { headers });
        expect({ status, body }).toMatchObject({ status: 200, body: { state: "sealed", checksum: null } });
        expect(modeOf(storage.path)).toBe(0o1540);
      }),
    );
  }

  test(
    "does not mind a reader, and minds a writer until it lets go",
    apps.with(async (app) => {
      const { id, storage } = await app.create();
      using _ = lease(storage.path);
      {
        using __ = lease(storage.path, "write");
        expect(await app.get(id)).toMatchObject({ in_use: true, has_writers: true });
        await app.refused("region-has-writers", "POST", `/v1/regions/${id}/seal`, {});
        expect(modeOf(storage.path)).toBe(0o660);
        expect(await app.get(id)).toMatchObject({ state: "open", revision: 1, sealed_at: null });
      }
      expect(await app.seal(id)).toMatchObject({ state: "sealed" });
      expect(await app.get(id)).toMatchObject({ in_use: true, has_writers: false });
    }),
  );

  test("minds a writer that came while the mode was being set, which is why it asks only then", async () => {
    let atMode = () => {};
    await withApp(
      async (app) => {
        const { id, storage } = await app.create();
        using stack = new DisposableStack();
        atMode = () => stack.use(lease(storage.path, "write"));
        await app.refused("region-has-writers", "POST", `/v1/regions/${id}/seal`, {});
        expect(await app.get(id)).toMatchObject({ state: "open", has_writers: true });
      },
      { onStep: (step) => step === "seal.mode-set" && atMode() },
    )();
  });

  test(
    "while another one is under way is refused, and the first one stands",
    apps.with(async (app) => {
      const { id } = await app.create({ byte_size: slowBytes });
      const first = app.seal(id, { checksum: true });
      expect(await idInState(app, "sealing")).toBe(id);
      await app.refused("region-busy", "POST", `/v1/regions/${id}/seal`, {});
      await app.refused("region-busy", "POST", `/v1/regions/${id}/verify`);
      expect((await first).state).toBe("sealed");
    }),
  );

  test(
    "of a file that a worker made shorter or longer leaves the region open",
    apps.with(async (app) => {
      const { id, storage } = await app.create();
      using intruder = new Intruder(storage.path);
      for (const byteSize of [0, storage.byte_size - 1, storage.byte_size + 1]) {
        intruder.truncate(byteSize);
        for (const checksum of [true, false]) {
          await app.refused("io-error", "POST", `/v1/regions/${id}/seal`, { checksum });
        }
        expect(modeOf(storage.path)).toBe(0o660);
      }
      intruder.truncate(storage.byte_size);
      await app.seal(id, { checksum: true });
    }),
  );

  test(
    "of a region whose memory is gone is refused and not a mistake of ours",
    withApp(async (app) => {
      const { id } = await app.create();
      unlinkSync(`${app.shmDirectory}/tensord.${app.instance}/keep/${id.slice(4)}`);
      const { body } = await app.request("POST", `/v1/regions/${id}/seal`, { checksum: true });
      expect(body).toMatchObject({ code: "io-error" });
      await app.remove(id);
    }),
  );
});

describe("a checksum", () => {
  for (const [byteSize, value] of patternChecksums) {
    test(
      `of ${byteSize} bytes is the one that another implementation computes`,
      withApp(async (app) => {
        const { id, storage, tensors } = await app.create({ byte_size: byteSize });
        {
          using file = new Intruder(storage.path);
          file.write(tensors[0]?.byte_offset ?? 0, toPattern(byteSize));
        }
        const { checksum } = await app.seal(id, { checksum: true });
        expect(checksum).toEqual({ algorithm: "xxh3-64-tree", chunk_bytes: limits.checksumChunkBytes, value });
        expect(await app.verify(id)).toEqual({ ok: true, algorithm: "xxh3-64-tree", expected: value, actual: value });
      }),
    );
  }

  for (const [byteSize, value] of onesChecksums) {
    test(
      `of ${byteSize} bytes in chunks is the one that another implementation computes`,
      apps.with(async (app) => {
        const { id, storage, tensors } = await app.create({ byte_size: byteSize });
        {
          using file = new Intruder(storage.path);
          file.write(tensors[0]?.byte_offset ?? 0, new Uint8Array(byteSize).fill(1));
        }
        expect((await app.seal(id, { checksum: true })).checksum?.value).toBe(value);
      }),
    );
  }

  test(
    "is of the data alone: a region of the same bytes under another name has the same",
    apps.with(async (app) => {
      const values = new Set<string | undefined>();
      for (const body of [{ name: "a" }, { name: "a-much-longer-name" }, {}]) {
        const { id } = await app.create({ byte_size: 100, ...body });
        values.add((await app.seal(id, { checksum: true })).checksum?.value);
      }
      expect(values.size).toBe(1);
    }),
  );
});

describe("a verification", () => {
  test(
    "finds a single changed bit, wherever it is, and the way back",
    apps.with(async (app) => {
      const { id, storage, tensors } = await app.create({ byte_size: 100_000 });
      const begin = tensors[0]?.byte_offset ?? 0;
      using intruder = new Intruder(storage.path);
      intruder.write(begin, toPattern(100_000));
      const { checksum } = await app.seal(id, { checksum: true });
      for (const at of [begin, begin + 50_000, storage.byte_size - 1]) {
        const [byte = 0] = intruder.read(at, 1);
        intruder.write(at, Uint8Array.of(byte ^ 1));
        const { ok, expected, actual } = await app.verify(id);
        expect({ ok, expected }).toEqual({ ok: false, expected: checksum?.value ?? "" });
        expect(actual).not.toBe(expected);
        intruder.write(at, Uint8Array.of(byte));
        expect(await app.verify(id)).toMatchObject({ ok: true, actual: expected });
      }
    }),
  );

  test(
    "does not look at the header, which holds no tensor",
    apps.with(async (app) => {
      const { id, storage } = await app.create();
      using intruder = new Intruder(storage.path);
      await app.seal(id, { checksum: true });
      intruder.write(0, Buffer.alloc(100, 0xff));
      expect(await app.verify(id)).toMatchObject({ ok: true });
    }),
  );

  test(
    "of a region without a checksum tells what it would be",
    apps.with(async (app) => {
      const { id } = await app.create({ byte_size: 0 });
      await app.seal(id);
      const actual = "2d06800538d394c2";
      expect(await app.verify(id)).toEqual({ ok: null, algorithm: "xxh3-64-tree", expected: null, actual });
    }),
  );

  test(
    "changes nothing and counts as a lease while it reads",
    apps.with(async (app) => {
      const { id } = await app.create({ byte_size: slowBytes });
      const sealed = await app.seal(id, { checksum: true });
      const verifications = Array.from({ length: 3 }, () => app.verify(id));
      await until("the verifications are under way", async () => (await app.get(id)).in_use);
      for (const verification of verifications) expect((await verification).ok).toBeTrue();
      expect(await app.get(id)).toMatchObject({ in_use: false, revision: sealed.revision });
    }),
  );

  test(
    "of a file that a worker made shorter is an error of that file, and the server goes on",
    apps.with(async (app) => {
      const { id, storage } = await app.create({ byte_size: slowBytes });
      using intruder = new Intruder(storage.path);
      await app.seal(id, { checksum: true });
      const verification = app.request("POST", `/v1/regions/${id}/verify`);
      intruder.truncate(4096);
      expect((await verification).body).toMatchObject({ code: "io-error" });
      await app.refused("io-error", "POST", `/v1/regions/${id}/verify`);
      await app.remove(id);
    }),
  );
});
