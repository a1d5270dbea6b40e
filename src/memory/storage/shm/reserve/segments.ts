/** Segments that lie ready, and what they take: pages of a file in `new/` that no region has had. It makes and removes none. */

import { chooseHuge, smallClasses } from "./plan.ts";

export interface ReadySegment {
  /** Its file's, in `new/`. */
  readonly name: string;
  /** Of a huge one whole chunks. */
  readonly byteSize: number;
  readonly kind: "small" | "huge";
  /** An open descriptor of a small one; whoever takes the segment closes it. */
  readonly fd: number | undefined;
}

export class Segments {
  /** By class, from the smallest on. */
  readonly #small: ReadySegment[][] = smallClasses.map(() => []);
  readonly #huge: ReadySegment[] = [];
  /** What all of them take. */
  bytes = 0;

  add(segment: ReadySegment): void {
    if (segment.kind === "huge") this.#huge.push(segment);
    else this.#small[smallClasses.findIndex(({ byteSize }) => byteSize === segment.byteSize)]?.push(segment);
    this.bytes += segment.byteSize;
  }

  /** The one that suits a file of `byteSize` bytes, which is no longer ours; undefined if none does. */
  take(byteSize: number): ReadySegment | undefined {
    const index = smallClasses.findIndex((each) => byteSize <= each.byteSize);
    if (index !== -1) return this.#remove(this.#small[index] ?? [], 0);
    const size = chooseHuge(this.hugeSizes, byteSize);
    return size === undefined ? undefined : this.takeHuge(size);
  }

  /** One of just that size. */
  takeHuge(byteSize: number): ReadySegment | undefined {
    return this.#remove(
      this.#huge,
      this.#huge.findIndex((each) => each.byteSize === byteSize),
    );
  }

  /** What to give up for `byteSize` bytes: the smallest huge one that is as large, else the largest; small ones at last. */
  takeFor(byteSize: number): ReadySegment | undefined {
    const enough = this.hugeSizes.filter((size) => size >= byteSize);
    const huge = this.takeHuge(enough.length > 0 ? Math.min(...enough) : Math.max(...this.hugeSizes));
    if (huge !== undefined) return huge;
    const full = this.#small.findLast((segments) => segments.length > 0);
    return this.#remove(full ?? [], 0);
  }

  get hugeSizes(): readonly number[] {
    return this.#huge.map(({ byteSize }) => byteSize);
  }

  /** How many there are of each class, from the smallest on. */
  get smallCounts(): readonly number[] {
    return this.#small.map(({ length }) => length);
  }

  #remove(from: ReadySegment[], index: number): ReadySegment | undefined {
    const [segment] = index === -1 ? [] : from.splice(index, 1);
    if (segment !== undefined) this.bytes -= segment.byteSize;
    return segment;
  }
}
