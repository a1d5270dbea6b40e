/** Regions page by page, in the order of their creation. Looks at a bounded number of them, and hands none out. */

import { TensordError } from "../error.ts";
import type { State } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import type { Region } from "../state/region.ts";
import type { Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";

export interface Filter {
  readonly model?: string | undefined;
  readonly name?: string | undefined;
  readonly version?: string | undefined;
  /** The session that ends them: its own, and what it builds. What drains is nobody's any more. */
  readonly session?: string | undefined;
  readonly state?: State | undefined;
  readonly label?: readonly [key: string, value: string] | undefined;
  /** Only regions of these models; null: of all. */
  readonly models?: ReadonlySet<string> | null;
}

export interface Page {
  readonly items: readonly Region[];
  /** Where the next page begins, or null at the end. A page may be short and still have a next one. */
  readonly nextCursor: string | null;
}

/**
 * One page in the order of creation, after `cursor`. Looks at a bounded number of regions however rare a match is.
 * @throws TensordError `model-not-found`, `session-not-found`, `validation-failed` for a cursor that is none.
 */
export function listRegions(store: Store, filter: Filter, limit: number, cursor: string | undefined): Page {
  const model = filter.model === undefined ? undefined : store.books.model(filter.model);
  const session = filter.session === undefined ? undefined : store.books.session(filter.session);
  const after = parseCursor(cursor);
  if (model !== undefined && filter.name !== undefined) {
    const named = [...model.names.all(filter.name)]
      .filter((region) => region.key > after && matches(region, filter, session))
      .sort((a, b) => a.key - b.key);
    const items = named.slice(0, limit);
    return { items, nextCursor: named.length > limit ? String(items.at(-1)?.key) : null };
  }
  const items: Region[] = [];
  let looked = 0;
  for (const region of ownedAfter(session, after) ?? (model ?? store.books).regions.after(after)) {
    if (matches(region, filter, session)) items.push(region);
    looked += 1;
    if (items.length === limit || looked === limits.listScan) return { items, nextCursor: String(region.key) };
  }
  return { items, nextCursor: null };
}

/** The session's regions above `key`, unless they are so many that the index of all is as good. It got them in this order. */
function ownedAfter(session: Session | undefined, key: number): readonly Region[] | undefined {
  if (session === undefined || session.regions.size > limits.listScan) return undefined;
  return [...session.regions].filter((region) => region.key > key);
}

function matches(
  region: Region,
  { model, name, version, state, label, models = null }: Filter,
  session: Session | undefined,
): boolean {
  if (session !== undefined && !session.regions.has(region)) return false;
  if (model !== undefined && region.model !== model) return false;
  if (models !== null && !models.has(region.model)) return false;
  if (name !== undefined && region.name !== name) return false;
  if (version !== undefined && region.version !== version) return false;
  if (state !== undefined && region.state !== state) return false;
  return label === undefined || (Object.hasOwn(region.labels, label[0]) && region.labels[label[0]] === label[1]);
}

function parseCursor(cursor: string | undefined): number {
  const key = cursor === undefined ? 0 : /^\d{1,16}$/.test(cursor) ? Number(cursor) : Number.NaN;
  if (Number.isSafeInteger(key)) return key;
  throw new TensordError("validation-failed", `Cannot continue the list: ${quote(cursor ?? "")} is no cursor`, {
    hint: "Pass the next_cursor of the page before, unchanged, or leave it out to begin.",
  });
}
