/**
 * Which pages lie where in a pool's virtual range: runs by index, counted in pages. It knows neither what a run is to others, nor bytes, nor what is
 * true of a page beside its place.
 */

import assert from "node:assert/strict";

/** Pages side by side: the one at `index + i` has the number `firstPage + i`. */
export interface Span {
  index: number;
  count: number;
  firstPage: number;
}

/** Free pages of the range. */
export interface Hole {
  readonly index: number;
  readonly count: number;
}

export interface Move {
  readonly from: number;
  readonly to: number;
  readonly count: number;
  readonly firstPage: number;
}

export class PageMap<Run extends Span> {
  readonly capacity: number;
  /** By index; no two overlap. */
  readonly #runs: Run[] = [];
  #pages = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get runs(): readonly Run[] {
    return this.#runs;
  }

  /** How many pages lie in it. */
  get pages(): number {
    return this.#pages;
  }

  /** Places a run where nothing lies. */
  add(run: Run): void {
    const { index, count } = run;
    assert(count > 0 && index >= 0 && index + count <= this.capacity, "a run lies within the range");
    assert(this.firstIn(index, count) === undefined, "two runs never overlap");
    this.#runs.splice(this.#seek(index), 0, run);
    this.#pages += count;
  }

  remove(run: Run): void {
    const at = this.#seek(run.index);
    // The seek finds the first that ends behind its index, which is itself.
    assert(this.#runs[at] === run, "what is removed lies here");
    this.#runs.splice(at, 1);
    this.#pages -= run.count;
  }

  /** The first run that has a page in the range. */
  firstIn(index: number, count: number): Run | undefined {
    const run = this.#runs[this.#seek(index)];
    return run !== undefined && run.index < index + count ? run : undefined;
  }

  /** All runs that have a page in the range, by index. */
  *in(index: number, count: number): Generator<Run> {
    for (let at = this.#seek(index); at < this.#runs.length; at++) {
      const run = this.#runs[at];
      if (run === undefined || run.index >= index + count) return;
      yield run;
    }
  }

  /** The first page of the range that lies in no run of which `counts` is true; undefined if all of them do. */
  firstLacking(index: number, count: number, counts: (run: Run) => boolean): number | undefined {
    let next = index;
    for (const run of this.in(index, count)) {
      if (run.index > next || !counts(run)) return next;
      next = run.index + run.count;
    }
    return next < index + count ? next : undefined;
  }

  /** The place of the first hole of at least `count` pages. */
  firstHole(count: number): number | undefined {
    for (const hole of this.holes()) if (hole.count >= count) return hole.index;
    return undefined;
  }

  *holes(): Generator<Hole> {
    let next = 0;
    for (const { index, count } of this.#runs) {
      if (index > next) yield { index: next, count: index - next };
      next = index + count;
    }
    if (next < this.capacity) yield { index: next, count: this.capacity - next };
  }

  /**
   * Divides the run that has pages on both sides of `index`.
   * @param divide makes the upper part, of which it is given index, count and first page; the run itself becomes the lower one.
   * @returns both parts, or undefined if no run lies across.
   */
  cut(index: number, divide: (run: Run, upper: Span) => Run): readonly [Run, Run] | undefined {
    const at = this.#seek(index);
    const run = this.#runs[at];
    if (run === undefined || run.index >= index) return undefined;
    const lower = index - run.index;
    const upper = divide(run, { index, count: run.count - lower, firstPage: run.firstPage + lower });
    run.count = lower;
    this.#runs.splice(at + 1, 0, upper);
    return [run, upper];
  }

  /** Where each run would go so that no hole lies before any: whole, and in the order in which they lie. */
  planMoves(): { readonly run: Run; readonly move: Move }[] {
    const planned: { run: Run; move: Move }[] = [];
    let next = 0;
    for (const run of this.#runs) {
      const { index: from, count, firstPage } = run;
      if (from !== next) planned.push({ run, move: { from, to: next, count, firstPage } });
      next += count;
    }
    return planned;
  }

  /** Moves runs as `planMoves` has it. */
  applyMoves(): void {
    for (const { run, move } of this.planMoves()) run.index = move.to;
  }

  /** Where the first run stands that ends behind `index`. */
  #seek(index: number): number {
    let low = 0;
    let high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const run = this.#runs[middle];
      if (run !== undefined && run.index + run.count <= index) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** How much of what is free cannot be had in one piece: 1 − largest hole ÷ all of them, and 0 where nothing is free. */
export function fragmentation(freePages: number, largestHole: number): number {
  return freePages === 0 ? 0 : 1 - largestHole / freePages;
}
