/** Pages of a load come with its bytes: until they are there they are promised, and nobody is told that the region is. */

import { expect, test } from "bun:test";
import { readdirSync, statSync, truncateSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { limits, MiB } from "../../src/memory/limits.ts";
import { createRegion } from "../../src/memory/regions/create.ts";
import { readStats } from "../../src/memory/state/stats.ts";
import type { Step } from "../../src/memory/state/steps.ts";
import { type AppOptions, type TestApp, toCharge, withApp } from "../harness/app.ts";
import { needsRoot, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { ModelFolder } from "../harness/load.ts";
import { safetensorsFile } from "../harness/model-files.ts";
import { patienceMs } from "../harness/server-wait.ts";
import { load, loadFile } from "./support/load.ts";

const chunkBytes = limits.checksumChunkBytes;

/** A file of `count` chunks and a bit, whose bytes are zeros that its disk does not have. */
function writeSparse(folder: ModelFolder, count: number): string {
  const path = folder.writeTensor("large.bin", new Uint8Array(0));
  truncateSync(path, count * chunkBytes + 4097);
  return path;
}

interface Place {
  readonly app: TestApp;
  readonly tmpfs: Tmpfs;
  readonly path: string;
}

/** An app in a file system of its own, and what is done when its first part was written. */
function withPlace(
  sizeBytes: number,
  chunks: number,
  use: (place: Place, parts: () => number) => Promise<void>,
  onFirstPart: (place: Place) => void,
  options: AppOptions = {},
) {
  return async function usePlace() {
    using tmpfs = new Tmpfs({ sizeBytes });
    using folder = new ModelFolder();
    const path = writeSparse(folder, chunks);
    let parts = 0;
    let place: Place | undefined;
    const onStep = (step: Step) => {
      if (step !== "load.part-written") return;
      parts += 1;
      if (parts === 1 && place !== undefined) onFirstPart(place);
    };
    const all = { shmDirectory: tmpfs.path, memoryLimitBytes: 2 ** 40, modelRoots: [folder.path], onStep, ...options };
    await withApp(async (app) => {
      await app.start();
      place = { app, tmpfs, path };
      await use(place, () => parts);
    }, all)();
  };
}

/** What the only file that is kept has of pages. */
function keptBytes(app: TestApp): number {
  const folder = join(app.shmDirectory, `tensord.${app.instance}`, "keep");
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).blocks * 512, 0);
}

/** Of a file of so many chunks and a bit. */
const chargeOf = (chunks: number): number => toCharge(chunks * chunkBytes + 4097);

/** Nothing of a region is left, and nothing is promised to one; the journal may have taken a page. */
function isAsBefore(app: TestApp, tmpfs: Tmpfs, usedBytes: number): void {
  expect(keptBytes(app)).toBe(0);
  expect(tmpfs.usedBytes - usedBytes).toBeLessThan(MiB);
  expect(app.store.storages.get("shm").memory.space().usedBytes).toBe(tmpfs.usedBytes);
}

const asBytes = { format: "raw" };

test("pages of every form of a file are there when it is sealed, as many as the books say", async () => {
  using folder = new ModelFolder();
  const path = writeSparse(folder, 2);
  await withApp(
    async (app) => {
      const region = await app.get(await load(app, path, asBytes));
      expect(region.storage.byte_size).toBe(2 * chunkBytes + 4097);
      expect(statSync(region.storage.path as string).blocks * 512).toBe(toCharge(region.storage.byte_size));
      expect(await app.verify(region.id)).toMatchObject({ ok: true });
    },
    { modelRoots: [folder.path] },
  )();
});

for (const storage of ["shm", "memfd"] as const) {
  test(
    `pages of a region in ${storage} that nobody wrote are there when it is sealed`,
    withApp(async (app) => {
      const byteSize = 8 * MiB;
      const { region } = await createRegion(
        app.store,
        {
          ...{ model: "default", name: null, version: "", storage, isStorageSaid: false, ifExists: "fail" },
          ...{ owner: { kind: "ttl", ttlMs: 600_000 }, session: null, claim: undefined, labels: {}, createdBy: null },
          ...{ evictable: false, onFull: "fail", deadlineMs: 0 },
          tensors: [{ name: "w", dtype: "U8", shape: [byteSize] }],
          fill: async () => null,
          isWritten: true,
        },
        new AbortController().signal,
      );
      const path = app.store.storages.of(region).memory.descriptionPath(region.token);
      expect(statSync(path).blocks * 512).toBe(toCharge(region.byteSize));
    }),
  );
}

/** Of numbers that were read one after the other, while no more than one part was being written. */
const nearly = (value: number, wanted: number) => expect(Math.abs(value - wanted)).toBeLessThan(chunkBytes + MiB);

/** What a load of so many chunks leaves free, by numbers that were read in almost one moment. */
function slackOf({ app, tmpfs }: Pick<Place, "app" | "tmpfs">, chunks: number): number {
  for (;;) {
    const before = keptBytes(app);
    const { freeBytes } = tmpfs;
    const after = keptBytes(app);
    if (after - before < MiB) return freeBytes - (chargeOf(chunks) - after);
  }
}

testWith(needsRoot)("what a load will write is not free for others, nor unaccounted for", async () => {
  let seen:
    | {
        readonly freeBytes: number;
        readonly usedBytes: number;
        readonly unaccountedBytes: number;
        readonly lateBytes: number;
      }
    | undefined;
  let before = 0;
  await withPlace(
    384 * MiB,
    4,
    async ({ app, path }) => {
      before = app.store.storages.get("shm").memory.space().freeBytes;
      const charge = chargeOf(4);
      expect((await loadFile(app, path, asBytes)).state).toBe("succeeded");
      expect(seen?.lateBytes).toBeGreaterThan(2 * chunkBytes);
      nearly(seen?.freeBytes ?? 0, before - charge);
      nearly((seen?.freeBytes ?? 0) + (seen?.usedBytes ?? 0), 384 * MiB);
      nearly(seen?.unaccountedBytes ?? Number.NaN, 0);
    },
    (place) => {
      const { freeBytes, usedBytes } = place.app.store.storages.get("shm").memory.space();
      const unaccountedBytes = readStats(place.app.store).pools[0]?.unaccountedBytes ?? Number.NaN;
      seen = { freeBytes, usedBytes, unaccountedBytes, lateBytes: chargeOf(4) - keptBytes(place.app) };
    },
  )();
});

testWith(needsRoot)("a load that is larger than what is free is refused before it copies a byte", async () => {
  await withPlace(
    256 * MiB,
    3,
    async ({ app, tmpfs, path }, parts) => {
      tmpfs.occupy("foreign", 100 * MiB);
      const before = tmpfs.usedBytes;
      const { state, problem } = await loadFile(app, path, asBytes);
      expect({ state, code: problem?.code }).toEqual({ state: "failed", code: "out-of-shared-memory" });
      expect(parts()).toBe(0);
      isAsBefore(app, tmpfs, before);
      unlinkSync(join(tmpfs.path, "foreign"));
      expect((await loadFile(app, path, asBytes)).state).toBe("succeeded");
    },
    () => {},
  )();
});

for (const [what, most, take] of [
  // One part is under way, and no other begins.
  ["too little for the rest", 2, ({ tmpfs, app }) => tmpfs.occupy("foreign", slackOf({ app, tmpfs }, 4) + 2 * MiB)],
  ["no page at all", 2, ({ tmpfs }) => tmpfs.fill()],
] as const satisfies readonly (readonly [string, number, (place: Place) => unknown])[]) {
  testWith(needsRoot)(`a load to which others have left ${what} meanwhile is undone whole`, async () => {
    await withPlace(
      384 * MiB,
      4,
      async ({ app, tmpfs, path }, parts) => {
        const before = tmpfs.usedBytes;
        const { state, problem } = await loadFile(app, path, asBytes);
        expect({ state, code: problem?.code }).toEqual({ state: "failed", code: "out-of-shared-memory" });
        expect(problem?.hint).toContain("foreign files");
        expect(parts()).toBeLessThanOrEqual(most);
        unlinkSync(join(tmpfs.path, "foreign"));
        isAsBefore(app, tmpfs, before);
        expect((await loadFile(app, path, asBytes)).state).toBe("succeeded");
      },
      take,
    )();
  });
}

testWith(needsRoot)("a sharded load to which others have left no page meanwhile is undone whole", async () => {
  using shards = new ModelFolder();
  const size = 3 * chunkBytes;
  const header = JSON.stringify({ w: { dtype: "U8", shape: [size], data_offsets: [0, size] } });
  const shard = shards.write("1.safetensors", safetensorsFile(header, new Uint8Array(0)));
  truncateSync(shard, statSync(shard).size + size);
  const index = shards.write("i.safetensors.index.json", JSON.stringify({ weight_map: { w: "1.safetensors" } }));
  await withPlace(
    320 * MiB,
    1,
    async ({ app, tmpfs }) => {
      const before = tmpfs.usedBytes;
      expect((await loadFile(app, index)).problem).toMatchObject({ code: "out-of-shared-memory" });
      unlinkSync(join(tmpfs.path, "foreign"));
      isAsBefore(app, tmpfs, before);
      const region = await app.get(await load(app, index));
      expect(statSync(region.storage.path as string).blocks * 512).toBe(toCharge(region.storage.byte_size));
    },
    ({ tmpfs }) => tmpfs.fill(),
    { modelRoots: [shards.path] },
  )();
});

testWith(needsRoot)("what lies ready is given back before a load is refused that is half done", async () => {
  const reserve = {
    settingBytes: 40 * MiB,
    hugeAfterMs: 0,
    nice: 0,
    stopMs: patienceMs,
    readPressure: () => ({ meminfo: undefined, pressure: undefined }),
  };
  let givenBefore = 0;
  await withPlace(
    640 * MiB,
    3,
    async ({ app, path }) => {
      await app.store.reserve.settled();
      expect((await loadFile(app, path, asBytes)).state).toBe("succeeded");
      expect(app.store.reserve.counts.givenBackBytes).toBeGreaterThan(givenBefore);
    },
    (place) => {
      const { app, tmpfs } = place;
      givenBefore = app.store.reserve.counts.givenBackBytes;
      // Three MiB less than it will write; the least that lies ready is twice as much.
      tmpfs.occupy("foreign", slackOf({ app, tmpfs }, 3) + 3 * MiB);
    },
    { reserve },
  )();
});
