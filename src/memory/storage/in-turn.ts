/** Work that several lanes share. */

import type { Lane } from "./lane.ts";

/** Each lane takes the next item until none is left, or one has failed. Resolves, or throws the first failure, when all lanes are idle. */
export async function inTurn<Item>(
  lanes: readonly Lane[],
  items: readonly Item[],
  work: (lane: Lane, index: number, item: Item) => Promise<void>,
): Promise<void> {
  const left = items.entries();
  const failures: unknown[] = [];
  await Promise.all(
    lanes.map(async (lane) => {
      for (const [index, item] of left) {
        if (failures.length > 0) return;
        await work(lane, index, item).catch((error: unknown) => failures.push(error));
      }
    }),
  );
  if (failures.length > 0) throw failures[0];
}
