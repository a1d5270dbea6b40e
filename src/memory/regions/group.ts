/**
 * Groups: regions of a model that are sealed, and opened, in one turn. It says which may be one; the seal itself is
 * `seal.ts`'s, for one region and for many.
 */

import { TensordError } from "../error.ts";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import { hasEnded } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { noteFetch } from "./consumers.ts";
import { lookUp, refuse, touch } from "./find.ts";

/**
 * Refuses what cannot be sealed as a group: two models, one region twice, two regions that would have one name.
 * @throws TensordError `validation-failed`, which names both.
 */
export function checkGroup(regions: readonly Region[]): void {
  const seen = new Set<Region>();
  const byName = new Map<string, Region>();
  for (const region of regions) {
    const [first = region] = regions;
    if (region.model !== first.model) {
      throw refused(`${describe(region)} is of model ${quote(region.model)}`, `one model, as of ${describe(first)}`);
    }
    if (seen.has(region)) throw refused(`${describe(region)} is there twice`, "each once");
    seen.add(region);
    const name = region.pendingName ?? region.name;
    if (name === null) continue;
    const key = `${name}/${region.version}`;
    const other = byName.get(key);
    if (other !== undefined) {
      throw refused(
        `${describe(other)} and ${describe(region)} would both be called ${quote(name)}`,
        "names of their own",
      );
    }
    byName.set(key, region);
  }
}

/** Regions by their names, all of one model and, if one is said, of that version. */
export interface NamedGroup {
  readonly model: string;
  readonly names: readonly string[];
  readonly version?: string | undefined;
}

/**
 * The regions that hold all of these names, as they are in one turn. With `waitMs` it waits until all are there and sealed;
 * when the time is over it answers with what is there.
 * @throws TensordError `region-not-found` of the first that is not there, `model-not-found`, `validation-failed` if their
 * descriptors are too much for one answer, `shutting-down`.
 */
export async function findGroup(
  store: Store,
  { model, names, version }: NamedGroup,
  waitMs: number,
  signal: AbortSignal,
): Promise<readonly Region[]> {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw refused(`${quote(name)} is there twice`, "each once");
    seen.add(name);
  }
  const deadline = performance.now() + waitMs;
  const stop = AbortSignal.any([signal, store.stopping]);
  for (;;) {
    const found = names.map((name) => lookUp(store, { model, name, version }));
    const awaited = names.find((_, index) => found[index]?.state !== "sealed");
    const leftMs = deadline - performance.now();
    if (awaited !== undefined && leftMs > 0) {
      await store.waiters.wait(model, awaited, leftMs, stop);
      continue;
    }
    const regions = found.map(
      (region, index) => region ?? refuse(store, { model, name: names[index] ?? "", version }, waitMs),
    );
    checkAnswer(regions);
    for (const region of regions) touch(store, region);
    // The look at their names may have found that one is lost.
    if (regions.some(({ state }) => hasEnded(state))) continue;
    for (const region of regions) noteFetch(store, region);
    return regions;
  }
}

function checkAnswer(regions: readonly Region[]): void {
  const byteSize = regions.reduce((sum, { tensors }) => sum + tensors.byteSize, 0);
  if (byteSize <= limits.groupAnswerBytes) return;
  throw refused(`the descriptors of its tensors have ${byteSize} bytes`, `at most ${limits.groupAnswerBytes}`);
}

function refused(state: string, want: string): TensordError {
  return new TensordError("validation-failed", `Cannot form the group: ${state}, want ${want}`, {
    hint: `A group is up to ${limits.groupMembers} regions of one model.`,
  });
}
