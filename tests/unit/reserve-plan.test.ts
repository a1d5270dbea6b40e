/** What a reserve is to consist of, and which of its segments becomes a region: sizes alone. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { GiB, KiB, limits, MiB } from "../../src/memory/limits.ts";
import { chooseHuge, compareSizes, planHuge, toDefaultReserve } from "../../src/memory/storage/shm/reserve/plan.ts";
import { reserveLimits } from "../../src/memory/storage/shm/reserve/reserve-limits.ts";
import { type ReadySegment, Segments } from "../../src/memory/storage/shm/reserve/segments.ts";

const huge = (...sizes: number[]) => sizes.map((size) => size * MiB);

describe("a reserve that nobody gave a size", () => {
  test("is none under 4 GiB of memory, then 5 %, and at most 1 GiB", () => {
    expect([3.9, 4, 8, 20, 100].map((size) => toDefaultReserve(size * GiB))).toEqual([
      0,
      Math.floor(0.2 * GiB),
      Math.floor(0.4 * GiB),
      GiB,
      GiB,
    ]);
  });
});

describe("the plan", () => {
  test("has halves of what there is, so that there is something for every size", () => {
    expect(planHuge(16 * MiB, [])).toEqual(huge(2, 4, 8));
    expect(planHuge(3 * MiB, [])).toEqual([]);
  });

  test("keeps what was asked for twice lately, and not what was asked for once", () => {
    expect(planHuge(256 * MiB, [100 * MiB, 64 * MiB + 4096, 64 * MiB + 8192])).toEqual(
      huge(64, 64, 2, 4, 8, 16, 32, 64),
    );
    expect(planHuge(64 * MiB, [100 * MiB, 100 * MiB])).toEqual(planHuge(64 * MiB, []));
  });

  test("is of whole huge pages and within the budget, whatever was asked for", () => {
    const sizes = fc.array(fc.integer({ min: 0, max: 4 * GiB }), { maxLength: reserveLimits.remembered });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4 * GiB }), sizes, (budget, asked) => {
        const plan = planHuge(budget, asked);
        expect(plan.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(budget);
        expect(plan.every((size) => size > 0 && size % limits.hugePageBytes === 0)).toBeTrue();
      }),
    );
  });

  test("is compared with what is ready, as often as each size is there", () => {
    expect(compareSizes([8, 8, 4], [8, 2, 2])).toEqual({ missing: [8, 4], spare: [2, 2] });
  });
});

describe("the segment for a region", () => {
  test("holds its whole chunks, or is cut by half at most, or is the largest that can be extended", () => {
    const ready = huge(4, 64, 128);
    expect(chooseHuge(ready, 64 * MiB + 4096)).toBe(64 * MiB);
    expect(chooseHuge(ready, 65 * MiB)).toBe(64 * MiB);
    expect(chooseHuge(ready, 66 * MiB)).toBe(128 * MiB);
    expect(chooseHuge(ready, 512 * MiB)).toBe(128 * MiB);
    expect(chooseHuge(ready, 514 * MiB)).toBeUndefined();
    expect(chooseHuge(ready, 2 * MiB)).toBe(4 * MiB);
    expect(chooseHuge(ready, 2 * MiB - 1)).toBeUndefined();
  });
});

function small(byteSize: number, name: string): ReadySegment {
  return { name, byteSize, kind: "small", fd: undefined };
}

describe("what lies ready", () => {
  test("is taken by class, data apart from the header's page, and each once", () => {
    const segments = new Segments();
    segments.add(small(64 * KiB + 4096, "64"));
    segments.add(small(MiB + 4096, "1024"));
    expect(segments.take(64 * KiB + 4097)).toBeUndefined();
    expect(segments.take(64 * KiB + 4096)?.name).toBe("64");
    expect(segments.take(4096)).toBeUndefined();
    expect(segments.take(MiB + 4096)?.name).toBe("1024");
    expect(segments.bytes).toBe(0);
  });

  test("goes for others by what they need: the smallest that is enough, else the largest, small ones last", () => {
    const segments = new Segments();
    for (const size of huge(2, 8, 32))
      segments.add({ name: `${size / MiB}`, byteSize: size, kind: "huge", fd: undefined });
    segments.add(small(64 * KiB + 4096, "64"));
    const gone = [3 * MiB, 40 * MiB, 1, 1, 1].map((size) => segments.takeFor(size)?.name);
    expect(gone).toEqual(["8", "32", "2", "64", undefined]);
  });
});
