/**
 * The reserve: fresh files whose pages are there before anybody asks for them, huge ones where the kernel can. It fills itself
 * when nothing else is to be done, and gives everything back before anything is refused. What becomes of a segment that was
 * taken is `shm-memory.ts`'s.
 */

import { closeSync, truncateSync, unlinkSync } from "node:fs";
import { limits } from "../../../limits.ts";
import type { Collapsed } from "../../../os/libc-pages.ts";
import { ignoreMissing } from "../shm-files.ts";
import { Collapser } from "./collapser.ts";
import { Filler } from "./filler.ts";
import { smallClasses } from "./plan.ts";
import { isPressed, readPressure } from "./pressure.ts";
import { ReserveLane } from "./reserve-lane.ts";
import { reserveLimits } from "./reserve-limits.ts";
import type { ReserveCounts, ReserveParts } from "./reserve-parts.ts";
import { type ReadySegment, Segments } from "./segments.ts";

const shortages = new Set(["ENOENT", "ENOSPC", "ENOMEM", "EMFILE", "ENFILE"]);

export class Reserve implements AsyncDisposable {
  readonly budgetBytes: number;
  /** Why there can be none on this host; undefined if there can. */
  readonly absence: string | undefined;
  readonly counts: ReserveCounts = {
    hits: { small: 0, huge: 0 },
    misses: { small: 0, huge: 0 },
    refills: 0,
    hugeChunks: 0,
    smallChunks: 0,
    givenBackBytes: 0,
  };
  /** Regions that were sealed, and may get huge pages yet. */
  readonly sealed: Collapser;
  readonly #lane = new ReserveLane();
  readonly #parts: ReserveParts;
  readonly #segments = new Segments();
  readonly #filler: Filler;
  /** Pages of segments that are being removed. */
  #goingBytes = 0;
  readonly #going = new Set<Promise<void>>();
  /** Sizes that were asked for, the latest first. */
  #asked: number[] = [];
  #smallOnly: string | undefined;
  #isRunning = false;
  #isEnded = false;
  #beginning: Promise<void> | undefined;
  #isPressed = false;
  #hugeAt = Number.POSITIVE_INFINITY;
  #filling: { readonly cancel: AbortController; readonly ended: Promise<void> } | undefined;
  #fillTimer: Timer | undefined;
  #lookTimer: Timer | undefined;

  constructor(parts: ReserveParts) {
    this.#parts = parts;
    this.budgetBytes = parts.budgetBytes;
    this.absence = parts.absence;
    this.#filler = new Filler({
      ...parts,
      lane: this.#lane,
      segments: this.#segments,
      takenBytes: () => this.bytes,
      asked: () => this.#asked,
      onMade: () => {
        this.counts.refills += 1;
      },
      onCollapsed: (collapsed) => this.#count(collapsed),
      remove: (segment) => this.#remove(segment),
    });
    this.sealed = new Collapser({
      lane: this.#lane,
      mayWork: () => this.givesHugePages && !this.#isPressed,
      onCollapsed: (collapsed) => this.#count(collapsed),
      onFailure: (error) => this.#tellUnlessShort(error),
    });
  }

  /** What it takes now, of the file system and of what the limit leaves. */
  get bytes(): number {
    return this.#segments.bytes + this.#filler.makingBytes + this.#goingBytes;
  }

  /** Whether huge pages can be had here, as was tried at the start. */
  get givesHugePages(): boolean {
    return this.#isRunning && this.#smallOnly === undefined;
  }

  /** Why it makes no huge pages, as was found out at the start; undefined if it does. */
  get smallOnly(): string | undefined {
    return this.#smallOnly;
  }

  /** Brings the Worker up. What it makes nobody waits for: on a busy machine that takes long. */
  async start(): Promise<void> {
    if (this.budgetBytes === 0) return;
    await this.#lane.start(this.#parts.nice ?? reserveLimits.nice);
    this.#beginning = this.#begin();
  }

  /** Finds out whether huge pages can be had, and begins to fill. */
  async #begin(): Promise<void> {
    this.#smallOnly = await this.#tryHugePage();
    if (this.#isEnded) return;
    this.#isRunning = true;
    this.#hugeAt = performance.now() + (this.#parts.hugeAfterMs ?? reserveLimits.startMs);
    this.#look();
    this.#lookTimer = setInterval(() => this.#look(), reserveLimits.lookMs);
    this.#lookTimer.unref();
    this.#fill();
  }

  /** A segment for a file of `byteSize` bytes, which is the caller's from here on; undefined: there is none that suits. */
  take(byteSize: number): ReadySegment | undefined {
    if (!this.#isRunning) return undefined;
    const segment = this.#segments.take(byteSize);
    const kind = byteSize <= (smallClasses.at(-1)?.byteSize ?? 0) ? "small" : "huge";
    this.counts[segment === undefined ? "misses" : "hits"][kind] += 1;
    if (kind === "huge") this.#asked = [byteSize, ...this.#asked].slice(0, reserveLimits.remembered);
    this.#fillSoon();
    return segment;
  }

  /** Whether it takes more than the limit leaves, now that something was charged: `makeWay` is owed. */
  get isInTheWay(): boolean {
    return this.bytes > this.#parts.roomBytes();
  }

  /** Gives back what is more than the limit leaves, before pages of others take its place. */
  async makeWay(): Promise<void> {
    await this.giveBack(this.#parts.roomBytes());
  }

  /** Gives back all but `mostBytes`. @returns whether there was anything to give. */
  async giveBack(mostBytes = 0): Promise<boolean> {
    const hadBytes = this.bytes;
    if (this.#segments.bytes + this.#filler.makingBytes > mostBytes) await this.#stopFilling();
    for (;;) {
      const excess = this.#segments.bytes + this.#filler.makingBytes - mostBytes;
      const segment = excess > 0 ? this.#segments.takeFor(excess) : undefined;
      if (segment === undefined) break;
      this.counts.givenBackBytes += segment.byteSize;
      void this.#remove(segment);
    }
    await Promise.all(this.#going);
    return hadBytes > mostBytes;
  }

  /**
   * Frees some of it in this very turn, for what can wait for nobody: no more than a moment takes.
   * @returns whether there was anything to give.
   */
  giveUp(): boolean {
    const segment = this.#segments.takeFor(limits.hugePageBytes);
    if (segment === undefined) return false;
    const { name, byteSize, kind, fd } = segment;
    const leftBytes = kind === "huge" ? byteSize - limits.hugePageBytes : 0;
    try {
      if (fd !== undefined) closeSync(fd);
      if (leftBytes === 0) unlinkSync(this.#parts.pathOf(name));
      else {
        truncateSync(this.#parts.pathOf(name), leftBytes);
        this.#segments.add({ ...segment, byteSize: leftBytes });
      }
      this.counts.givenBackBytes += byteSize - leftBytes;
    } catch (error) {
      this.#parts.onWarning("Cannot free a segment of the reserve; the next start will", error);
    }
    return true;
  }

  /** Counts chunks of which huge pages were to be made. */
  #count({ hugeChunks, smallChunks }: Collapsed): void {
    this.counts.hugeChunks += hugeChunks;
    this.counts.smallChunks += smallChunks;
  }

  /** Resolves once nothing is missing that can be made now. */
  async settled(): Promise<void> {
    await this.#beginning;
    while (this.#filling !== undefined || this.#fillTimer !== undefined) {
      await (this.#filling?.ended ?? new Promise((resolve) => setTimeout(resolve, 1)));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnded = true;
    this.#isRunning = false;
    clearInterval(this.#lookTimer);
    clearTimeout(this.#fillTimer);
    this.#fillTimer = undefined;
    const late = new Promise((resolve) => setTimeout(resolve, this.#parts.stopMs ?? reserveLimits.stopMs).unref());
    await Promise.race([Promise.all([this.#beginning, this.giveBack()]), late]);
    this.#lane[Symbol.dispose]();
  }

  /** One chunk tells. @returns why not; undefined if it can be done. */
  async #tryHugePage(): Promise<string | undefined> {
    const name = this.#filler.nextName();
    try {
      const fd = await this.#lane.make(this.#parts.pathOf(name), 0);
      try {
        const { refusal } = await this.#lane.grow(fd, 0, limits.hugePageBytes);
        if (refusal === "EINVAL")
          return "this kernel makes no huge page of a file's small ones (Linux 6.1, and shmem_enabled other than deny, are wanted)";
        return undefined;
      } finally {
        closeSync(fd);
        await this.#unlink(name);
      }
    } catch {
      return "there was no memory to try whether this kernel makes huge pages";
    }
  }

  /** Looks whether others need the memory, and fills what is missing if they do not. */
  #look(): void {
    this.#isPressed = isPressed((this.#parts.readPressure ?? readPressure)(), this.#isPressed);
    if (this.#isPressed || this.#parts.freeBytes() < reserveLimits.freeBytes) void this.giveBack();
    else this.#fill();
  }

  #fillSoon(): void {
    if (this.#fillTimer !== undefined) return;
    this.#fillTimer = setTimeout(() => {
      this.#fillTimer = undefined;
      this.#fill();
    }, reserveLimits.refillMs);
    this.#fillTimer.unref();
  }

  #fill(): void {
    if (!this.#isRunning || this.#filling !== undefined) return;
    const cancel = new AbortController();
    const ended = this.#fillAll(cancel.signal)
      .catch((error) => this.#tellUnlessShort(error))
      .finally(() => {
        this.#filling = undefined;
      });
    this.#filling = { cancel, ended };
  }

  /** That there is no memory or descriptor for it, or no such file any more, is nothing to tell of. */
  #tellUnlessShort(error: unknown): void {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (!shortages.has(code)) this.#parts.onWarning("Cannot make pages ready now; it is tried again", error);
  }

  async #stopFilling(): Promise<void> {
    this.#filling?.cancel.abort();
    await this.#filling?.ended;
  }

  async #fillAll(signal: AbortSignal): Promise<void> {
    if (this.#isPressed) return;
    await this.#filler.fillSmall(signal);
    if (!this.givesHugePages || performance.now() < this.#hugeAt) return;
    const isRefused = await this.#filler.fillHuge(signal);
    if (isRefused) this.#hugeAt = performance.now() + reserveLimits.refusedMs;
  }

  #remove({ name, byteSize, fd }: ReadySegment): Promise<void> {
    // Its file has a name still, so this frees nothing.
    if (fd !== undefined) closeSync(fd);
    this.#goingBytes += byteSize;
    const going = this.#unlink(name)
      .catch((error) => this.#parts.onWarning("Cannot remove a segment of the reserve; the next start will", error))
      .finally(() => {
        this.#goingBytes -= byteSize;
        this.#going.delete(going);
        this.#parts.onStep?.("reserve.removed");
      });
    this.#going.add(going);
    return going;
  }

  async #unlink(name: string): Promise<void> {
    await this.#parts.lanes.freeing.run({ kind: "unlink", path: this.#parts.pathOf(name) }).catch(ignoreMissing);
  }
}
