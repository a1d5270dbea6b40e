/**
 * Pages of lists, made in slices between which others have their turn: a page of 1,000 regions takes milliseconds to write
 * down. Each slice is a page of its own, found and written in one turn, and the next begins where it ended: what changes in
 * between is seen as between two pages. `bench/many.ts`.
 */

import { setImmediate } from "node:timers/promises";
import type { Context, TypedResponse } from "hono";
import { limits } from "../memory/limits.ts";
import { answerPieces } from "./answer.ts";
import type { Environment } from "./environment.ts";

/** A part of a list, in its order. */
export interface Slice<Item> {
  readonly items: readonly Item[];
  /** Where the list goes on, or null at its end. */
  readonly nextCursor: string | null;
}

/**
 * Answers with the items of a page as `toWire` has them.
 * @param limit of the query.
 * @param read finds at most `count` items behind `cursor`. It may find fewer, or none, and still not be at the end.
 */
export async function answerPage<Item, Wire>(
  c: Context<Environment>,
  { limit, cursor }: { readonly limit?: string | undefined; readonly cursor?: string | undefined },
  read: (count: number, cursor: string | undefined) => Slice<Item>,
  toWire: (item: Item) => Wire,
): Promise<Response & TypedResponse<{ items: Wire[]; next_cursor: string | null }, 200, "json">> {
  const parts: Uint8Array[] = [];
  let left = limit === undefined ? limits.listItemsDefault : Number(limit);
  let next: string | null = null;
  for (let slices = 1; ; slices++) {
    const { items, nextCursor } = read(Math.min(left, limits.listSlice), next ?? cursor);
    if (items.length > 0) parts.push(toText(items.map(toWire), parts.length > 0));
    left -= items.length;
    next = nextCursor;
    if (left <= 0 || next === null || slices === limits.listSlices) break;
    await setImmediate();
  }
  return answerPieces(c, ['{"items":[', ...parts, `],"next_cursor":${JSON.stringify(next)}}`], 200);
}

/**
 * The items of a slice without the brackets around them, a comma before them where others stand before. Written as one array: each item by
 * itself, then all of them joined, is as many bytes of garbage three times, and it is the collector that holds the loop longest.
 */
function toText(items: readonly unknown[], isContinued: boolean): Uint8Array {
  const bytes = Buffer.from(JSON.stringify(items));
  if (isContinued) bytes.write(",");
  return bytes.subarray(isContinued ? 0 : 1, -1);
}
