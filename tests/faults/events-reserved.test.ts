/** Numbers of events are written down before they are given, so that not even a clock that went back repeats one. */

import { afterAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { limits, MiB } from "../../src/memory/limits.ts";
import { openStore } from "../../src/memory/start/open-store.ts";
import type { Store } from "../../src/memory/state/store.ts";
import { toEventText } from "../../src/routes/to-event.ts";
import { purge } from "../../src/server/cli/purge.ts";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";

afterAll(assertNothingLeft);

function tell(store: Store, count: number): void {
  const model = store.books.model("default");
  for (let told = 0; told < count; told++) store.emit({ type: "tensord.model.changed", model });
}

test("a journal whose numbers are ahead of the clock gives none twice", async () => {
  const { name: instance, shmDirectory, store: folder } = createInstance();
  const open = () =>
    openStore({ shmDirectory, instance, memoryLimitBytes: 256 * MiB, toEventText, onWarning: () => {} });
  /** Opens the store, and forgets what it saved when it closed, as a crash would. */
  async function use(work: (store: Store) => void): Promise<void> {
    {
      await using opened = await open();
      work(opened.store);
    }
    rmSync(join(folder, "events"));
  }
  try {
    // As if the clock had been ten years ahead.
    let next = (Date.now() + limits.ttlMs) * 1000;
    await use(({ journal }) => journal.reserveSequences(next));
    for (let round = 0; round < 3; round++) {
      await use((store) => {
        const { events, journal } = store;
        expect(events.last + 1).toBeGreaterThanOrEqual(next);
        for (let count = 0; count < 3; count++) {
          tell(store, limits.sequenceBlock / 2);
          expect(journal.read().sequence, "what was given is written down").toBeGreaterThan(events.last);
        }
        next = events.last + 1;
      });
    }
  } finally {
    await purge({ shmDirectory, instance }, false, true);
  }
});
