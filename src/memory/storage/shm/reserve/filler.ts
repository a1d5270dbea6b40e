/**
 * Makes what the reserve lacks: small segments first and in between, then huge ones by the plan. It stops for whoever needs the memory,
 * and knows nothing of what becomes of a segment.
 */

import { closeSync } from "node:fs";
import { limits } from "../../../limits.ts";
import { readDescriptorLimit } from "../../../os/libc.ts";
import type { Collapsed } from "../../../os/libc-pages.ts";
import { compareSizes, findRepeated, planHuge, type SmallClass, smallBytes, smallClasses } from "./plan.ts";
import type { ReserveLane } from "./reserve-lane.ts";
import { reserveLimits } from "./reserve-limits.ts";
import type { ReserveParts } from "./reserve-parts.ts";
import type { ReadySegment, Segments } from "./segments.ts";

export interface FillerParts
  extends Pick<ReserveParts, "budgetBytes" | "pathOf" | "roomBytes" | "freeBytes" | "onStep"> {
  readonly lane: ReserveLane;
  readonly segments: Segments;
  /** What the reserve takes, with what is being made. */
  readonly takenBytes: () => number;
  /** Sizes that were asked for, the latest first. */
  readonly asked: () => readonly number[];
  readonly onMade: () => void;
  readonly onCollapsed: (collapsed: Collapsed) => void;
  readonly remove: (segment: ReadySegment) => Promise<void>;
}

export class Filler {
  /** Pages of what is being made. */
  makingBytes = 0;
  readonly #parts: FillerParts;
  readonly #mostBytes: number;
  #made = 0;

  constructor(parts: FillerParts) {
    this.#parts = parts;
    this.#mostBytes = parts.budgetBytes + smallBytes;
  }

  /** A name for a file in `new/` that was none before. */
  nextName(): string {
    this.#made += 1;
    return `segment-${this.#made}`;
  }

  async fillSmall(signal: AbortSignal): Promise<void> {
    if (readDescriptorLimit().soft < BigInt(reserveLimits.leastDescriptors)) return;
    for (const [index, each] of smallClasses.entries()) await this.#fillClass(index, each, signal);
  }

  /** @returns whether the kernel refused huge pages, and is to be left alone for a while. */
  async fillHuge(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      await this.fillSmall(signal);
      const size = await this.#nextHuge();
      if (size === undefined) return false;
      if (await this.#makeHuge(size, signal)) return true;
    }
    return false;
  }

  async #fillClass(index: number, { byteSize, count }: SmallClass, signal: AbortSignal): Promise<void> {
    const { lane, segments, pathOf, onMade } = this.#parts;
    while (!signal.aborted && (segments.smallCounts[index] ?? 0) < count && this.#hasRoom(byteSize)) {
      const name = this.nextName();
      this.makingBytes += byteSize;
      try {
        const fd = await lane.make(pathOf(name), byteSize);
        segments.add({ name, byteSize, kind: "small", fd });
      } finally {
        this.makingBytes -= byteSize;
      }
      onMade();
    }
  }

  /** The size of the huge segment to be made next; what nobody asks for goes for it. */
  async #nextHuge(): Promise<number | undefined> {
    const { budgetBytes, segments, asked, takenBytes, remove } = this.#parts;
    const { missing, spare } = compareSizes(planHuge(budgetBytes, asked()), segments.hugeSizes);
    const [first] = missing;
    while (first !== undefined && takenBytes() + first > this.#mostBytes && spare.length > 0) {
      const segment = segments.takeHuge(spare.pop() ?? 0);
      if (segment !== undefined) await remove(segment);
    }
    return missing.find((size) => this.#hasRoom(size));
  }

  /** Whether `byteSize` bytes more are within the budget, and nobody else's. */
  #hasRoom(byteSize: number): boolean {
    const { roomBytes, freeBytes, takenBytes } = this.#parts;
    const wanted = takenBytes() + byteSize;
    return wanted <= this.#mostBytes && wanted <= roomBytes() && freeBytes() - byteSize >= 2 * reserveLimits.freeBytes;
  }

  /** Whether something that is asked for again and again is missing, while another size is being made. */
  #isWaitedFor(byteSize: number): boolean {
    const { missing } = compareSizes(findRepeated(this.#parts.asked()), this.#parts.segments.hugeSizes);
    return missing.some((size) => size < byteSize) && !missing.includes(byteSize);
  }

  /** @returns whether the kernel gave no more huge pages. */
  async #makeHuge(size: number, signal: AbortSignal): Promise<boolean> {
    const { lane, segments, pathOf, roomBytes, takenBytes, onStep, onMade, onCollapsed, remove } = this.#parts;
    const name = this.nextName();
    const fd = await lane.make(pathOf(name), 0);
    onStep?.("reserve.file-made");
    let done = 0;
    let isRefused = false;
    let isWaitedFor = false;
    try {
      while (done < size && !isRefused && !isWaitedFor && !signal.aborted && takenBytes() <= roomBytes()) {
        const windowBytes = Math.min(reserveLimits.windowBytes, size - done);
        this.makingBytes = done + windowBytes;
        const collapsed = await lane.grow(fd, done, windowBytes);
        onCollapsed(collapsed);
        onStep?.("reserve.window-grown");
        isRefused = collapsed.refusal !== undefined;
        done += isRefused ? (collapsed.hugeChunks + collapsed.smallChunks) * limits.hugePageBytes : windowBytes;
        await this.fillSmall(signal);
        isWaitedFor = this.#isWaitedFor(size);
      }
    } finally {
      closeSync(fd);
      this.makingBytes = 0;
      const segment = { name, byteSize: done, kind: "huge", fd: undefined } as const;
      // What was made before the kernel gave no more, or something else was wanted, is as good.
      if (done === size || ((isRefused || isWaitedFor) && done > 0)) segments.add(segment);
      else void remove(segment);
    }
    onMade();
    onStep?.("reserve.filled");
    return isRefused;
  }
}
