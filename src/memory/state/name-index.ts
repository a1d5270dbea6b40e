/**
 * The names of a model's regions. A name's versions stand side by side; the name alone means the newest sealed one, or,
 * where none is sealed, the newest.
 */

import type { RegionRecord } from "../journal/region-record.ts";

type Versioned = Pick<RegionRecord, "key" | "version" | "sealedAt">;

export class NameIndex<Region extends Versioned> {
  /** A name has one version nearly always: only one of more costs a map. */
  readonly #byName = new Map<string, Region | Versions<Region>>();
  #size = 0;

  /** Names held, each version counted. */
  get size(): number {
    return this.#size;
  }

  /** Who holds `name` in this very version. */
  get(name: string, version: string): Region | undefined {
    const held = this.#byName.get(name);
    if (held instanceof Versions) return held.byVersion.get(version);
    return held?.version === version ? held : undefined;
  }

  /** Whom somebody means who says `name`, and perhaps a version. */
  find(name: string, version?: string): Region | undefined {
    if (version !== undefined) return this.get(name, version);
    const held = this.#byName.get(name);
    return held instanceof Versions ? held.current : held;
  }

  /** Every version of `name`, in no order. */
  all(name: string): Iterable<Region> {
    const held = this.#byName.get(name);
    return held instanceof Versions ? held.byVersion.values() : held === undefined ? [] : [held];
  }

  /** `region` holds `name` in its version, which must be free. */
  add(name: string, region: Region): void {
    const held = this.#byName.get(name);
    this.#size += 1;
    if (held === undefined) this.#byName.set(name, region);
    else if (held instanceof Versions) held.add(region);
    else this.#byName.set(name, new Versions([held, region]));
  }

  remove(name: string, { version }: Region): void {
    const held = this.#byName.get(name);
    this.#size -= 1;
    if (held instanceof Versions && held.byVersion.size > 1) held.remove(version);
    else this.#byName.delete(name);
  }

  /** A region that holds `name` was sealed, or is no more. */
  refresh(name: string): void {
    const held = this.#byName.get(name);
    if (held instanceof Versions) held.refresh();
  }
}

class Versions<Region extends Versioned> {
  readonly byVersion = new Map<string, Region>();
  #current: Region | undefined;

  constructor(regions: readonly Region[]) {
    for (const region of regions) this.byVersion.set(region.version, region);
  }

  get current(): Region | undefined {
    this.#current ??= [...this.byVersion.values()].reduce((newest, region) =>
      isNewer(region, newest) ? region : newest,
    );
    return this.#current;
  }

  add(region: Region): void {
    this.byVersion.set(region.version, region);
    this.refresh();
  }

  remove(version: string): void {
    this.byVersion.delete(version);
    this.refresh();
  }

  refresh(): void {
    this.#current = undefined;
  }
}

/** Of two that are sealed the one that was sealed later, else the one that is, else the one that was made later. */
function isNewer(region: Versioned, other: Versioned): boolean {
  const [sealedAt, otherSealedAt] = [region.sealedAt ?? 0, other.sealedAt ?? 0];
  return sealedAt === otherSealedAt ? region.key > other.key : sealedAt > otherSealedAt;
}
