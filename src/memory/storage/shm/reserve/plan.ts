/** What the reserve is to consist of, and which of its segments suits a region. Pure. */

import { limits } from "../../../limits.ts";
import { reserveLimits } from "./reserve-limits.ts";

const { hugePageBytes, dataAlignmentBytes } = limits;

/** A small region's segment, by the data that it is for. */
export interface SmallClass {
  /** With a header of one page. */
  readonly byteSize: number;
  readonly count: number;
}

/** From the smallest on. */
export const smallClasses: readonly SmallClass[] = reserveLimits.classes.map(({ dataBytes, count }) => ({
  byteSize: dataBytes + dataAlignmentBytes,
  count,
}));

/** How large a reserve is where nobody says so, in a server whose regions may take `limitBytes`. */
export function toDefaultReserve(limitBytes: number): number {
  if (limitBytes < reserveLimits.leastLimitBytes) return 0;
  return Math.min(Math.floor((limitBytes * reserveLimits.defaultPercent) / 100), reserveLimits.defaultBytes);
}

/** The whole chunks in so many bytes: what of a region's file can be huge pages. */
export function toWholeChunks(byteSize: number): number {
  return byteSize - (byteSize % hugePageBytes);
}

/**
 * The sizes of huge segments in a reserve of `budgetBytes`: what was asked for twice lately, the latest first and as often as that,
 * then halves of what is left, so that there is something for every size.
 * @param asked sizes of regions' files, the latest first.
 */
export function planHuge(budgetBytes: number, asked: readonly number[]): number[] {
  const sizes = asked.map(toWholeChunks).filter((size) => size > 0);
  const repeated = sizes.filter((size) => sizes.filter((other) => other === size).length > 1);
  const plan: number[] = [];
  let left = budgetBytes;
  for (const size of repeated) {
    if (size > left) continue;
    plan.push(size);
    left -= size;
  }
  for (
    let size = toWholeChunks(Math.floor(left / 2));
    size >= hugePageBytes;
    size = toWholeChunks(Math.floor(size / 2))
  ) {
    plan.push(size);
  }
  return plan;
}

/** What a plan has and `ready` lacks, and what is ready without being planned; both as sizes. */
export function compareSizes(
  plan: readonly number[],
  ready: readonly number[],
): { missing: number[]; spare: number[] } {
  const spare = [...ready];
  const missing = plan.filter((size) => {
    const index = spare.indexOf(size);
    if (index !== -1) spare.splice(index, 1);
    return index === -1;
  });
  return { missing, spare };
}

/**
 * Which of the huge segments of these sizes suits a file of `byteSize` bytes best: one that holds its whole chunks and no more; else the
 * smallest that need not be cut by more than a half; else the largest, to be extended. Undefined if none does.
 */
export function chooseHuge(sizes: readonly number[], byteSize: number): number | undefined {
  const whole = toWholeChunks(byteSize);
  if (whole === 0) return undefined;
  const larger = sizes.filter((size) => size >= whole && size <= whole * reserveLimits.cutShare);
  if (larger.length > 0) return Math.min(...larger);
  const smaller = sizes.filter((size) => size < whole && size * reserveLimits.extendShare >= whole);
  return smaller.length > 0 ? Math.max(...smaller) : undefined;
}
