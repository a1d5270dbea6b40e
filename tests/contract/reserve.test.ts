/** What lies ready for regions to come: nobody sees another's bytes in it, and it is in nobody's way. */

import { expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toTensorIndex } from "../../src/memory/layout/tensor-index.ts";
import { Tensors } from "../../src/memory/layout/tensors.ts";
import { KiB, limits, MiB } from "../../src/memory/limits.ts";
import { createToken } from "../../src/memory/naming.ts";
import { openSession } from "../../src/memory/sessions/sessions.ts";
import { smallBytes } from "../../src/memory/storage/shm/reserve/plan.ts";
import type { PressureTexts } from "../../src/memory/storage/shm/reserve/pressure.ts";
import { reserveLimits } from "../../src/memory/storage/shm/reserve/reserve-limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region } from "../harness/answers.ts";
import { type AppOptions, type TestApp, toCharge, until, withApp } from "../harness/app.ts";
import { isZeros } from "../harness/instance-content.ts";
import { needsCollapse, needsRoot, testWith } from "../harness/instance-needs.ts";
import { lockPageBytes, Tmpfs } from "../harness/instance-tmpfs.ts";
import { patienceMs } from "../harness/server-wait.ts";

const fixtures = join(import.meta.dir, "../unit/fixtures/reserve-pressure");
const readFixtures = (meminfo: string, pressure: string): PressureTexts => ({
  meminfo: readFileSync(join(fixtures, meminfo), "utf8"),
  pressure: readFileSync(join(fixtures, pressure), "utf8"),
});
const calm = readFixtures("meminfo-plenty", "pressure-calm");
const stalled = readFixtures("meminfo-plenty", "pressure-stalled");

const reserve = {
  settingBytes: 40 * MiB,
  hugeAfterMs: 0,
  nice: 0,
  stopMs: patienceMs,
  readPressure: () => calm,
};

/** An app with a reserve that is full. */
function withReserve(use: (app: TestApp) => Promise<void>, options: AppOptions = {}): () => Promise<void> {
  return withApp(
    async (app) => {
      await app.start();
      await app.store.reserve.settled();
      await use(app);
    },
    { reserve, ...options },
  );
}

const pathOf = ({ storage }: Region): string => storage.path ?? "";
const occupied = (path: string): number => statSync(path).blocks * 512;

/** The files of segments, and of what is being made: any of them may go, and others come, while they are looked at. */
function segments({ shmDirectory, instance }: TestApp): string[] {
  const folder = join(shmDirectory, `tensord.${instance}`, "new");
  return readdirSync(folder).map((name) => join(folder, name));
}

const statsOfSegments = (app: TestApp) =>
  segments(app).flatMap((path) => statSync(path, { throwIfNoEntry: false }) ?? []);

/** All bytes behind the header. */
function readData(region: Region): Buffer {
  return readFileSync(pathOf(region)).subarray(region.tensors[0]?.byte_offset);
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

const collapse = needsCollapse();
const sizes = [1, 64 * KiB, 300 * KiB, MiB, 2 * MiB, 4 * MiB, 9 * MiB + 5, 30 * MiB];

test(
  "what lies ready has no name, and no other uid may open it",
  withReserve(async (app) => {
    expect(segments(app).length).toBeGreaterThanOrEqual(
      reserveLimits.classes.reduce((sum, { count }) => sum + count, 0),
    );
    for (const { nlink } of statsOfSegments(app)) expect(nlink).toBe(1);
    for (const { mode } of statsOfSegments(app)) expect(mode & 0o7777).toBe(0o600);
    expect(app.files()).toEqual([`tensord.${app.instance}`]);
  }),
);

test(
  "a region of any size takes what the books say, and what lies ready takes what stats say",
  withReserve(async (app) => {
    for (const byteSize of sizes) {
      const region = await app.create({ byte_size: byteSize });
      expect(occupied(pathOf(region)), `of ${byteSize} bytes`).toBe(toCharge(region.storage.byte_size));
      expect(statSync(pathOf(region)).size).toBe(region.storage.byte_size);
      expect(statSync(pathOf(region)).mode & 0o7777).toBe(0o660);
      expect(isZeros(readData(region))).toBeTrue();
      await app.store.reserve.settled();
    }
    expect(hostOf(await app.stats()).reserve_bytes).toBeGreaterThanOrEqual(smallBytes);
    // It is looked after beside this, once a second.
    await until("what lies ready is what stats say", async () => {
      const { reserve_bytes } = hostOf(await app.stats());
      return statsOfSegments(app).reduce((sum, { blocks }) => sum + blocks * 512, 0) === reserve_bytes;
    });
    expect(app.store.reserve.counts.hits.small).toBe(4);
  }),
);

testWith(collapse)(
  "a large region is made of huge pages that lay ready, cut or extended to the byte",
  withReserve(async (app) => {
    const { counts } = app.store.reserve;
    // A machine whose memory is in pieces has none, and says so.
    if (counts.refills === counts.hits.small || counts.hugeChunks === 0) return;
    const region = await app.create({ byte_size: 9 * MiB });
    const { hits, misses } = app.store.reserve.counts;
    expect({ hits: hits.huge, misses: misses.huge }).toEqual({ hits: 1, misses: 0 });
    expect((await app.seal(region.id, { checksum: true })).checksum).not.toBeNull();
    expect((await app.verify(region.id)).ok).toBeTrue();
  }),
);

testWith(collapse)(
  "a region that did not lie ready gets huge pages after its seal, and neither its bytes nor the books change",
  withReserve(
    async (app) => {
      const { counts, sealed } = app.store.reserve;
      const bytes = Buffer.alloc(40 * MiB, "some weights ");
      for (let misses = 1; ; misses++) {
        const region = await app.create({ byte_size: 40 * MiB });
        expect(counts.misses.huge).toBe(misses);
        writeFileSync(pathOf(region), Buffer.concat([readFileSync(pathOf(region)).subarray(0, 4096), bytes]), {
          flag: "r+",
        });
        const before = counts.hugeChunks + counts.smallChunks;
        await app.seal(region.id, { checksum: true });
        await sealed.settled();
        const tried = counts.hugeChunks + counts.smallChunks - before;
        expect(tried).toBeLessThanOrEqual(20);
        expect((await app.verify(region.id)).ok).toBeTrue();
        expect(readData(region).equals(bytes)).toBeTrue();
        expect(occupied(pathOf(region))).toBe(toCharge(region.storage.byte_size));
        expect(await app.remove(region.id)).toMatchObject({ state: "deleted" });
        // A machine whose memory is in pieces has no huge page, which ends it, and a moment later it may have some.
        if (tried > 0 || needsCollapse() !== undefined) return;
      }
    },
    { reserve: { ...reserve, settingBytes: 16 * MiB } },
  ),
);

test(
  "no region has bytes of another one: each is of an inode that was none before",
  withReserve(async (app) => {
    const seen = new Set<string>();
    for (const byteSize of [64 * KiB, MiB, 8 * MiB, 64 * KiB, MiB, 8 * MiB, 8 * MiB]) {
      await app.store.reserve.settled();
      const region = await app.create({ byte_size: byteSize });
      expect(seen.has(region.storage.ino ?? "")).toBeFalse();
      seen.add(region.storage.ino ?? "");
      expect(isZeros(readData(region))).toBeTrue();
      writeFileSync(pathOf(region), Buffer.alloc(region.storage.byte_size, "secret"), { flag: "r+" });
      expect(await app.remove(region.id)).toMatchObject({ state: "deleted" });
    }
    await app.store.reserve.settled();
    for (const path of segments(app)) expect(readIfThere(path)?.includes("secret")).not.toBeTrue();
  }),
);

for (const storage of ["shm", "memfd"]) {
  test(
    `it is given back before a region in ${storage} storage would not fit beside it, and is available until then`,
    withReserve(
      async (app) => {
        expect(hostOf(await app.stats())).toMatchObject({ available_bytes: 64 * MiB });
        await app.create({ byte_size: 60 * MiB - 4096, storage });
        const { used_bytes, reserve_bytes, available_bytes } = hostOf(await app.stats());
        expect(used_bytes + reserve_bytes).toBeLessThanOrEqual(64 * MiB);
        expect(available_bytes).toBe(64 * MiB - used_bytes);
      },
      { memoryLimitBytes: 64 * MiB + limits.journalBytes },
    ),
  );
}

testWith(needsRoot)("it is given back where the file system has no more, and nobody is told that it does", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 256 * MiB });
  await withReserve(
    async (app) => {
      const { unaccounted_bytes, reserve_bytes } = hostOf(await app.stats());
      expect(unaccounted_bytes).toBe(lockPageBytes);
      tmpfs.occupy("foreign", tmpfs.freeBytes - 2 * MiB);
      const region = await app.create({ byte_size: Math.min(reserve_bytes, 4 * MiB) });
      expect(occupied(pathOf(region))).toBe(toCharge(region.storage.byte_size));
    },
    { shmDirectory: tmpfs.path, memoryLimitBytes: 200 * MiB },
  )();
});

testWith(needsRoot)(
  "what is written of regions, sessions and lists takes its pages where nobody else has any",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 256 * MiB });
    await withReserve(
      async (app) => {
        const facts = { client: null, quotaBytes: null, ttlMs: 600_000, createdBy: null };
        const tensor = { dtype: "U8", shape: [1], byteOffset: 0, byteSize: 1, aligned: true } as const;
        const list = Tensors.of(Array.from({ length: 20_000 }, (_, index) => ({ ...tensor, name: `t${index}` })));
        const index = toTensorIndex(list);
        const before = app.store.reserve.bytes;
        // All of this in one turn, in which nobody looks whether there is room.
        tmpfs.fill();
        for (let count = 0; count < 200; count++) openSession(app.store, { ...facts, name: "x".repeat(4000) });
        expect(app.store.reserve.bytes).toBeLessThan(before);
        expect(app.store.reserve.bytes).toBeGreaterThan(0);
        tmpfs.fill();
        const token = createToken();
        expect((await app.store.tensorFiles.write(token, list, index)).count).toBe(list.count);
        await app.store.tensorFiles.remove(token);
      },
      { shmDirectory: tmpfs.path, memoryLimitBytes: 200 * MiB },
    )();
  },
);

test("it is given back while tasks wait for memory, and made again after that", async () => {
  let texts = calm;
  await withReserve(
    async (app) => {
      expect(app.store.reserve.bytes).toBeGreaterThan(0);
      texts = stalled;
      await until("it is given back", () => app.store.reserve.bytes === 0 && segments(app).length === 0);
      texts = calm;
      await until("it is there again", () => app.store.reserve.bytes >= smallBytes);
    },
    { reserve: { ...reserve, readPressure: () => texts } },
  )();
});

test(
  "a stop gives all of it back",
  withReserve(async (app) => {
    expect(segments(app)).not.toEqual([]);
    await app.leave();
    expect(segments(app)).toEqual([]);
  }),
);

test(
  "an instance without one has none",
  withReserve(
    async (app) => {
      expect(app.store.reserve.bytes).toBe(0);
      expect(segments(app)).toEqual([]);
      await app.create();
      expect(app.store.reserve.counts).toMatchObject({ hits: { small: 0 }, misses: { small: 0 } });
    },
    { reserve: undefined },
  ),
);
