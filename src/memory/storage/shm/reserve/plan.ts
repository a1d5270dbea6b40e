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

/** What all small segments take. */
export const smallBytes = smallClasses.reduce((sum, { byteSize, count }) => sum + byteSize * count, 0);

/** How large a reserve is where nobody says so, in a server whose regions may take `limitBytes`. */
export function toDefaultReserve(limitBytes: number): number {
  if (limitBytes < reserveLimits.leastLimitBytes) return 0;
  return Math.min(Math.floor((limitBytes * reserveLimits.defaultPercent) / 100), reserveLimits.defaultBytes);
}

/** The whole chunks in so many bytes: what of a region's file can be huge pages. */
export function toWholeChunks(byteSize: number): number {
  return byteSize - (byteSize % hugePageBytes);
}

/** Of sizes of regions' files, the whole chunks of those that were asked for twice: each as often as it was. */
export function findRepeated(asked: readonly number[]): number[] {
  const sizes = asked.map(toWholeChunks).filter((size) => size > 0);
  return sizes.filter((size) => sizes.filter((other) => other === size).length > 1);
}

/**
 * The sizes of huge segments in a reserve of `budgetBytes`, in the order in which they are to be made: what was asked for twice lately, as
 * often as that, then halves of what is left, the smallest first, so that there is something for every size.
 * @param asked sizes of regions' files, the latest first.
 */
export function planHuge(budgetBytes: number, asked: readonly number[]): number[] {
  const wanted: number[] = [];
  let left = budgetBytes;
  for (const size of findRepeated(asked)) {
    if (size > left) continue;
    wanted.push(size);
    left -= size;
  }
  const halves: number[] = [];
  let size = toWholeChunks(Math.floor(left / 2));
  for (; size > 0; size = toWholeChunks(Math.floor(size / 2))) halves.unshift(size);
  return [...wanted, ...halves];
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
