/** The map of pages against a plain list of them, whatever is done to both. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { fragmentation, PageMap, type Span } from "../../src/cuda/elastic/page-map.ts";

const capacity = 24;

interface Picture {
  readonly map: PageMap<Span>;
  /** The number of the page at each index. */
  readonly pages: (number | undefined)[];
  next: number;
}

function start(): Picture {
  return { map: new PageMap(capacity), pages: new Array(capacity).fill(undefined), next: 1 };
}

const range = fc
  .tuple(fc.nat(capacity - 1), fc.integer({ min: 1, max: 8 }))
  .map(([index, count]) => [index, Math.min(count, capacity - index)] as const);
const step = fc.oneof(
  fc.record({ kind: fc.constant("place" as const), range }),
  fc.record({ kind: fc.constant("first-hole" as const), range }),
  fc.record({ kind: fc.constant("take-out" as const), range }),
  fc.record({ kind: fc.constant("close" as const), range }),
);

function perform({ map, pages, ...rest }: Picture, kind: string, [index, count]: readonly [number, number]): number {
  let { next } = rest;
  if (kind === "close") {
    const moves = map.planMoves().map(({ move }) => move);
    map.applyMoves();
    const before = [...pages];
    for (const { from, count: moved } of moves) pages.fill(undefined, from, from + moved);
    for (const { from, to, count: moved } of moves) {
      for (let each = 0; each < moved; each++) pages[to + each] = before[from + each];
    }
  } else if (kind === "take-out") {
    const divide = (_: Span, upper: Span) => upper;
    map.cut(index, divide);
    map.cut(index + count, divide);
    for (const run of [...map.in(index, count)]) map.remove(run);
    pages.fill(undefined, index, index + count);
  } else {
    const place = kind === "first-hole" ? map.firstHole(count) : index;
    const isFree = place !== undefined && map.firstIn(place, count) === undefined;
    if (place === undefined) expect(longestHole(pages)).toBeLessThan(count);
    if (place === undefined || !isFree) return next;
    map.add({ index: place, count, firstPage: next });
    for (let each = 0; each < count; each++) pages[place + each] = next + each;
    next += count;
  }
  return next;
}

function longestHole(pages: Picture["pages"]): number {
  let longest = 0;
  let length = 0;
  for (const page of pages) {
    length = page === undefined ? length + 1 : 0;
    longest = Math.max(longest, length);
  }
  return longest;
}

function drawn(map: PageMap<Span>): Picture["pages"] {
  const pages = new Array(capacity).fill(undefined);
  for (const { index, count, firstPage } of map.runs) {
    for (let each = 0; each < count; each++) pages[index + each] = firstPage + each;
  }
  return pages;
}

test("the map of pages is what a plain list of them would be, after any steps", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), range, (steps, [index, count]) => {
      const picture = start();
      for (const { kind, range: where } of steps) picture.next = perform(picture, kind, where);
      const { map, pages } = picture;
      expect(drawn(map)).toEqual(pages);
      expect(map.pages).toBe(pages.filter((page) => page !== undefined).length);
      expect(map.runs.every((run, at) => at === 0 || (map.runs[at - 1]?.index ?? 0) < run.index)).toBeTrue();
      const holes = [...map.holes()];
      expect(holes.reduce((sum, hole) => sum + hole.count, 0)).toBe(capacity - map.pages);
      expect(Math.max(0, ...holes.map((hole) => hole.count))).toBe(longestHole(pages));
      const lacking = pages.slice(index, index + count).indexOf(undefined);
      expect(map.firstLacking(index, count, () => true)).toBe(lacking === -1 ? undefined : index + lacking);
    }),
  );
});

test("after closing the holes there is one at most, at the end, and runs stay whole", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const picture = start();
      for (const { kind, range: where } of steps) picture.next = perform(picture, kind, where);
      const before = picture.map.runs.map(({ count, firstPage }) => ({ count, firstPage }));
      picture.map.applyMoves();
      expect(picture.map.runs.map(({ count, firstPage }) => ({ count, firstPage }))).toEqual(before);
      const holes = [...picture.map.holes()];
      expect(holes.length).toBeLessThanOrEqual(1);
      expect(holes[0] === undefined || holes[0].index === picture.map.pages).toBeTrue();
      expect(picture.map.planMoves()).toEqual([]);
    }),
  );
});

test("fragmentation is how much of what is free lies outside of the largest hole", () => {
  expect(fragmentation(0, 0)).toBe(0);
  expect(fragmentation(8, 8)).toBe(0);
  expect(fragmentation(8, 2)).toBe(0.75);
});
