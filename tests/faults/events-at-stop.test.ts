/** A server that stops while memory is still freed in the background: the end of a region is told by it, or by the next one. */

import { afterAll, expect, test } from "bun:test";
import { idOf } from "../../src/memory/journal/region-record.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { createRegion } from "../../src/memory/regions/create.ts";
import { deleteRegion } from "../../src/memory/regions/delete.ts";
import { openStore } from "../../src/memory/start/open-store.ts";
import type { Region } from "../../src/memory/state/region.ts";
import type { Store } from "../../src/memory/state/store.ts";
import { toEventText } from "../../src/routes/to-event.ts";
import { purge } from "../../src/server/cli/purge.ts";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";
import { roundsOf } from "../harness/rounds.ts";
import { until } from "../harness/server-wait.ts";

const rounds = roundsOf("events-at-stop");
/** About as many turns of the loop take until the Worker is done. */
const mostTurns = 160;

afterAll(assertNothingLeft);

/** Large enough to be freed in a Worker. */
async function makeLarge(store: Store): Promise<Region> {
  const request = {
    model: "default",
    name: null,
    storage: "shm",
    isStorageSaid: false,
    version: "",
    tensors: [{ name: "data", dtype: "U8", shape: [8 * MiB] }],
    owner: { kind: "persist" },
    ifExists: "fail",
    labels: {},
    createdBy: null,
    session: null,
    claim: undefined,
    evictable: false,
    onFull: "fail",
    deadlineMs: 1000,
  } as const;
  return (await createRegion(store, request, new AbortController().signal)).region;
}

/** What the ring has about the region. */
function typesAbout({ events }: Store, region: Region): string[] {
  const kept = events.history().events;
  return kept.filter(({ text }) => text.includes(idOf(region))).map(({ type }) => type);
}

test(`the end of a region is told once over ${rounds} stops in the middle of it`, async () => {
  const { name: instance, shmDirectory } = createInstance();
  const open = () =>
    openStore({ shmDirectory, instance, memoryLimitBytes: 256 * MiB, toEventText, onWarning: () => {} });
  try {
    for (let round = 0; round < rounds; round++) {
      const first = await open();
      const { store } = first;
      // A full ring takes longest to be saved.
      const model = store.books.model("default");
      while (store.events.size < limits.keptEvents - 10) store.emit({ type: "tensord.model.changed", model });
      const region = await makeLarge(store);
      void deleteRegion(store, region, "request").catch(() => undefined);
      // From at once on, each round stops a little later.
      for (let turn = 0; turn < (mostTurns * round) / rounds; turn++)
        await new Promise<void>((resolve) => setImmediate(resolve));
      store.stop();
      await first[Symbol.asyncDispose]();
      await using next = await open();
      const told = await until("its end is told", () => {
        const types = typesAbout(next.store, region);
        return types.at(-1) !== "tensord.region.draining" && types;
      });
      expect(told).toEqual(["tensord.region.allocated", "tensord.region.draining", "tensord.region.deleted"]);
    }
  } finally {
    await purge({ shmDirectory, instance }, false, true);
  }
});
