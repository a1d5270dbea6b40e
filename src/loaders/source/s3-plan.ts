/** How the data of objects comes into a region: in ranges that are asked for one by one, each with the places of its bytes. Pure. */

import { pieceNumbers } from "../file-lane.ts";
import { fileLimits } from "../limits.ts";

/** Some bytes of a range, in its order, and where in the region they go. */
export interface Stretch {
  readonly byteSize: number;
  readonly toOffset: number;
}

export interface PlannedRange {
  /** The object's place among those that are open. */
  readonly part: number;
  readonly byteOffset: number;
  readonly byteSize: number;
  readonly stretches: readonly Stretch[];
}

/** The data of one object, from `dataOffset` on, which stays in its order. */
export function planObject(dataOffset: number, byteSize: number): PlannedRange[] {
  return planPieces(Float64Array.of(0, dataOffset, byteSize - dataOffset, dataOffset));
}

/** Pieces as `OpenedBytes` has them. Those that follow each other in an object are asked for together, however many tensors they are. */
export function planPieces(pieces: Float64Array): PlannedRange[] {
  const ranges: { part: number; byteOffset: number; byteSize: number; stretches: Stretch[] }[] = [];
  for (let at = 0; at < pieces.length; at += pieceNumbers) {
    const [part = 0, from = 0, size = 0, to = 0] = pieces.subarray(at, at + pieceNumbers);
    for (let done = 0; done < size; ) {
      const last = ranges.at(-1);
      const goesOn = last?.part === part && last.byteOffset + last.byteSize === from + done;
      const room = goesOn ? fileLimits.objectRangeBytes - last.byteSize : 0;
      const byteSize = Math.min(size - done, room > 0 ? room : fileLimits.objectRangeBytes);
      const stretch = { byteSize, toOffset: to + done };
      if (goesOn && room > 0) {
        last.stretches.push(stretch);
        last.byteSize += byteSize;
      } else ranges.push({ part, byteOffset: from + done, byteSize, stretches: [stretch] });
      done += byteSize;
    }
  }
  return ranges;
}
