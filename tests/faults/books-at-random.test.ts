/**
 * Random operations in random bursts on one store: sessions, claims, leases, every owner, eviction, waiting for room,
 * models. At each quiet moment the books, recounted, agree with themselves, with their rows, with the events and with
 * every byte of the file system.
 */

import { afterAll, beforeAll, expect } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { TestApp, until } from "../harness/app.ts";
import { needsRoot, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { recount } from "../harness/instance-recount.ts";
import { lockPageBytes, Tmpfs } from "../harness/instance-tmpfs.ts";
import { EventPicture } from "./event-picture.ts";
import { RandomUser } from "./random-user.ts";

const MiB = 2 ** 20;
const users = 4;
const bursts = 150;

/** Hand-out times of seconds would leave nothing to evict, and nothing that lingers would end, in a test's time. */
const patient = { handOutMs: limits.handOutMs, handOutTakenMs: limits.handOutTakenMs };
const changeable: { handOutMs: number; handOutTakenMs: number } = limits as {
  handOutMs: number;
  handOutTakenMs: number;
};
beforeAll(() => void Object.assign(changeable, { handOutMs: 30, handOutTakenMs: 5 }));
afterAll(() => void Object.assign(changeable, patient));

testWith(needsRoot)(
  `after each of ${bursts} bursts of ${users} users' operations the books agree with rows, events and file system`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
    const app = await TestApp.open({ shmDirectory: tmpfs.path, memoryLimitBytes: 28 * MiB });
    const picture = new EventPicture(app.store);
    try {
      const all = Array.from({ length: users }, () => new RandomUser(app, new Random(random.integer(0, 2 ** 31))));
      for (let burst = 0; burst < bursts; burst++) {
        await Promise.all(all.map((user) => user.work(random.integer(1, 5))));
        await untilQuiet(app);
        recount(app.store);
        picture.compare();
        const stats = await app.stats();
        const host = hostOf(stats);
        expect(tmpfs.usedBytes, "every page is a region's, the journal's or the lock file's").toBe(
          host.used_bytes + host.draining_bytes + stats.journal_bytes + lockPageBytes,
        );
        expect(host.unaccounted_bytes).toBe(lockPageBytes);
      }
      const done = RandomUser.sum(all);
      console.log(JSON.stringify(done));
      for (const what of ["sessions ended", "evicted", "waited", "built", "leased", "lingered"]) {
        expect(done[what], `some were ${what}`).toBeGreaterThan(0);
      }
      expect(app.mistakes).toEqual([]);
      expect(app.warnings).toEqual([]);
    } finally {
      await app.close();
    }
  },
);

/** Waits until nothing is under way that nobody asked for: ends by time, and drains without a lease. */
async function untilQuiet({ store }: TestApp): Promise<void> {
  await until("nothing is under way", () => {
    const isEnding = [...store.books.sessions.after(0)].some(({ end }) => end !== null);
    const isFreeing = [...store.books.regions.after(0)].some(
      ({ state, serverLeases }) => state === "draining" && serverLeases === 0,
    );
    const { creating, sealing } = store.books.counts;
    return !isEnding && !isFreeing && creating + sealing === 0;
  });
}
