/** Pages of the `shm` storage: files of a tmpfs, made in `new/`, asked for their locks, and freed by their last unlink. */

import { chmodSync, closeSync, constants, fchmodSync, fstatSync, ftruncateSync, statfsSync, statSync } from "node:fs";
import { roundUpToPage } from "../../host/capacity.ts";
import { limits } from "../../limits.ts";
import { hostPool } from "../../naming.ts";
import { isOutOfDescriptors, type Stay, withSpare } from "../../os/descriptors.ts";
import { listDirectory, openFile } from "../../os/files.ts";
import { askLocks } from "../../os/kernel-lease.ts";
import { fallocate } from "../../os/libc.ts";
import { openAt, type Place } from "../../os/libc-names.ts";
import { toMode, toUnmarkedMode } from "../access-modes.ts";
import type { DataAccess } from "../data-file.ts";
import type { HostLanes } from "../lane.ts";
import type { Access, Identity, LatePages, Memory, OnAllocationStep, Segment, Space, Usage } from "../storage.ts";
import { isForWantOfMemory } from "../want-of-memory.ts";
import { writeInSlices, writeSlice } from "../write-in-slices.ts";
import type { PromisedPages } from "./promised-pages.ts";
import { toWholeChunks } from "./reserve/plan.ts";
import type { Reserve } from "./reserve/reserve.ts";
import type { ReadySegment } from "./reserve/segments.ts";
import { allocatedBytesOf, ignoreMissing, readIdentity, type ShmFiles, unlinkIfThere } from "./shm-files.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;
/** The number that statfs(2) has of it (<linux/magic.h>). */
const tmpfs = 0x0102_1994;

export interface ShmMemoryOptions {
  readonly onStep?: OnAllocationStep | undefined;
  /** Of files that lie ready, shared by all storages of the directory; undefined: each is made when it is asked for. */
  readonly reserve?: Reserve | undefined;
  /** Whether the directory's files are of huge pages by themselves. */
  readonly hasHugeFiles?: boolean;
  /** Of all storages of the directory; undefined: there is no other one. */
  readonly promised?: PromisedPages | undefined;
}

export class ShmMemory implements Memory {
  readonly pool = hostPool;
  readonly pageSize: number;
  readonly #files: ShmFiles;
  readonly #lanes: HostLanes;
  readonly #onStep: OnAllocationStep | undefined;
  readonly #reserve: Reserve | undefined;
  readonly #hasHugeFiles: boolean;
  readonly #countsPages: boolean;
  readonly usesReserve = true;

  constructor(files: ShmFiles, lanes: HostLanes, { onStep, reserve, hasHugeFiles = false }: ShmMemoryOptions) {
    this.#files = files;
    this.#lanes = lanes;
    this.#hasHugeFiles = hasHugeFiles;
    this.#onStep = onStep;
    this.#reserve = reserve;
    const { bsize, type } = statfsSync(files.newPath());
    this.pageSize = bsize;
    this.#countsPages = type === tmpfs && !hasHugeFiles;
  }

  readonly elsewhereBytes = 0;

  readonly latePages: LatePages = {
    write: (token, byteSize, write) => this.#write(token, byteSize, write),
    complete: (token, byteSize, signal) => this.#complete(token, byteSize, signal),
  };

  space(): Space {
    return this.#files.space();
  }

  async allocate(segment: Segment, signal: AbortSignal): Promise<Identity> {
    const ready = this.#reserve?.take(segment.byteSize);
    // What was charged just now is in nobody's place but the reserve's, if that is left too much.
    if (this.#reserve?.isInTheWay === true) await this.#reserve.makeWay();
    const fd = this.#begin(segment, ready);
    try {
      // A small region is made without a wait, which each would cost it processor time and garbage.
      if (ready !== undefined) await this.#fit(fd, ready, segment, signal);
      else await this.#bringPages(fd, 0, segment, signal);
      if (segment.header.length > limits.sliceBytes) await writeInSlices(fd, segment.header, 0);
      else writeSlice(fd, segment.header, 0, segment.header.length, 0);
      // The umask may have taken some of it.
      fchmodSync(fd, this.#files.modes.open);
      this.#onStep?.("create.header-written");
      return readIdentity(fd);
    } catch (error) {
      throw this.#files.translate(error, segment.byteSize);
    } finally {
      closeSync(fd);
    }
  }

  #begin(segment: Segment, ready: ReadySegment | undefined): number {
    try {
      return ready === undefined ? this.#make(segment) : this.#open(segment, ready);
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
  }

  #make({ token, byteSize }: Segment): number {
    const fd = openNew(this.#files.newPlace(token), this.#files.modes.open, stayOf(byteSize));
    this.#onStep?.("create.file-made");
    return fd;
  }

  /** A segment's file has its own name in `new/` until it is kept; nobody but this uid may open it before the header is there. */
  #open({ token, byteSize }: Segment, ready: ReadySegment): number {
    this.#files.takeFor(token, ready.name);
    const fd = ready.fd ?? openFile(this.#files.newPath(token), O_RDWR | O_NOFOLLOW, undefined, stayOf(byteSize));
    this.#onStep?.("create.segment-taken");
    return fd;
  }

  /**
   * Cuts or extends a segment's file to the byte. A huge page is never cut: what is behind the last whole chunk is of small pages, so
   * that the file takes what the books say.
   */
  async #fit(fd: number, ready: ReadySegment, segment: Segment, signal: AbortSignal): Promise<void> {
    const { byteSize } = segment;
    const keptBytes = Math.min(ready.byteSize, ready.kind === "huge" ? toWholeChunks(byteSize) : byteSize);
    const cutBytes = ready.byteSize - keptBytes;
    if (cutBytes > limits.inlineBytes) await this.#lanes.filling.run({ kind: "cut", fd, byteSize: keptBytes });
    else if (cutBytes > 0) ftruncateSync(fd, keptBytes);
    await this.#bringPages(fd, keptBytes, segment, signal);
    this.#onStep?.("create.segment-fitted");
  }

  /** Sees to the pages of `[from, byteSize)`. */
  async #bringPages(fd: number, from: number, segment: Segment, signal: AbortSignal): Promise<void> {
    const { token, byteSize, isWritten = false } = segment;
    if (byteSize - from <= limits.inlineBytes) return this.#allocateAtOnce(fd, from, byteSize);
    if (!isWritten) return await this.#allocatePages(fd, from, byteSize, signal);
    this.#files.promise(token, fd, byteSize, this.pageSize);
    ftruncateSync(fd, byteSize);
    this.#onStep?.("create.pages-promised");
  }

  /** Allocates `[from, to)` of the file, which it grows to: more than `inlineBytes`. */
  async #allocatePages(fd: number, from: number, to: number, signal: AbortSignal): Promise<void> {
    for (let done = this.#beginPages(fd, from, to); done < to; done += limits.allocateWindowBytes) {
      signal.throwIfAborted();
      // Somebody else may fill the file system meanwhile: stop at once instead of taking its last page.
      this.#files.checkSpace(to - done);
      const windowBytes = Math.min(limits.allocateWindowBytes, to - done);
      await this.#lanes.filling.run({ kind: "allocate", fd, byteOffset: done, byteSize: windowBytes });
      this.#onStep?.("create.window-allocated");
    }
    signal.throwIfAborted();
  }

  /**
   * Where files are of huge pages by themselves, the kernel gives one in microseconds, and zeroes it at its first touch: less than a Worker
   * takes to hear of it. So they are allocated here, for as long as that is so. @returns up to where
   */
  #beginPages(fd: number, from: number, to: number): number {
    if (!this.#hasHugeFiles) return from;
    this.#files.checkSpace(to - from);
    const end = performance.now() + limits.inlineAllocationMs;
    let done = from;
    while (done < to && performance.now() < end) {
      const byteSize = Math.min(limits.hugePageBytes - (done % limits.hugePageBytes), to - done);
      fallocate(fd, done, byteSize);
      done += byteSize;
    }
    this.#onStep?.("create.window-allocated");
    return done;
  }

  async #write<Result>(token: string, byteSize: number, write: () => Promise<Result>): Promise<Result> {
    this.#files.checkPromised(token);
    try {
      return await write();
    } catch (error) {
      throw isForWantOfMemory(error) ? this.#files.translate(error, byteSize) : error;
    }
  }

  async #complete(token: string, byteSize: number, signal: AbortSignal): Promise<void> {
    if (!this.#files.isPromised(token)) return;
    const fd = this.#files.translated(() => this.#files.open(token, "write", "long"));
    try {
      if (!this.#isWhole(fd, byteSize)) {
        for (let done = 0; done < byteSize; done += limits.allocateWindowBytes) {
          signal.throwIfAborted();
          this.#files.checkPromised(token);
          const windowBytes = Math.min(limits.allocateWindowBytes, byteSize - done);
          await this.#lanes.filling.run({ kind: "allocate", fd, byteOffset: done, byteSize: windowBytes });
          this.#onStep?.("create.window-allocated");
        }
      }
      this.#files.forgetPromise(token);
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Whether every page is there, as their number says where it says that: of a tmpfs, whose blocks are pages of bytes and of nothing else, and
   * of files without huge pages that reach over the end.
   */
  #isWhole(fd: number, byteSize: number): boolean {
    return this.#countsPages && allocatedBytesOf(fd) === roundUpToPage(byteSize, this.pageSize);
  }

  #allocateAtOnce(fd: number, from: number, to: number): void {
    if (to > from) fallocate(fd, from, to - from);
    this.#onStep?.("create.window-allocated");
  }

  async discard(token: string, byteSize: number): Promise<void> {
    await this.#unlink(this.#files.newPath(token), byteSize);
    this.#files.forgetPromise(token);
    this.#files.forgetTaken(token);
  }

  async discardAll(): Promise<void> {
    for (const name of this.#files.translated(() => listDirectory(this.#files.newPath()))) {
      const path = this.#files.newPath(name);
      await this.#unlink(
        path,
        this.#files.translated(() => statSync(path).size),
      );
    }
  }

  usage(token: string): Usage | undefined {
    return this.#files.translated(() => {
      const fd = openIfThere(this.#files.keptPath(token));
      if (fd === undefined) return undefined;
      try {
        return { ...askLocks(fd), byteSize: fstatSync(fd).size };
      } finally {
        closeSync(fd);
      }
    });
  }

  openDescription(token: string, access: DataAccess): number {
    const flags = O_NOFOLLOW | (access === "write" ? O_RDWR : O_RDONLY);
    return this.#files.translated(() => openFile(this.#files.keptPath(token), flags));
  }

  descriptionPath(token: string): string {
    return this.#files.keptPath(token);
  }

  setAccess(token: string, access: Access): void {
    const mode = toMode(this.#files.modes, access);
    this.#files.withKept(token, (fd) => fchmodSync(fd, mode));
  }

  /** By its path: what must not fail needs no descriptor. A file that somebody took away bears no mark. */
  unmark(token: string, access: Access): void {
    const mode = toUnmarkedMode(this.#files.modes, access);
    if (mode === toMode(this.#files.modes, access)) return;
    try {
      chmodSync(this.#files.keptPath(token), mode);
    } catch (error) {
      this.#files.translated(() => ignoreMissing(error));
    }
  }

  /** Of a file in a file system the kernel has no such word: its mode, and no writer's lock, are all there is. */
  seal(): Promise<boolean> {
    return sealed;
  }

  async free(token: string, byteSize: number): Promise<"freed" | "hard-link"> {
    const path = this.#files.keptPath(token);
    const kept = this.#files.translated(() => statSync(path, { throwIfNoEntry: false }));
    if (kept === undefined) {
      this.#files.forgetPromise(token);
      return "freed";
    }
    if (kept.nlink > 1) return "hard-link";
    await this.#unlink(path, byteSize);
    this.#files.forgetPromise(token);
    return "freed";
  }

  /** Unlinks the keeper's link in this turn, whoever maps the file. */
  remove(token: string): void {
    unlinkIfThere(this.#files.keptPath(token));
  }

  async #unlink(path: string, byteSize: number): Promise<void> {
    try {
      if (byteSize <= limits.inlineBytes) unlinkIfThere(path);
      else await this.#lanes.freeing.run({ kind: "unlink", path }).catch(ignoreMissing);
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
  }
}

const newFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;

/** With a spare descriptor only where there is no other, for which alone a function is made. */
function openNew(place: Place, mode: number, stay: Stay): number {
  try {
    return openAt(place, newFlags, mode);
  } catch (error) {
    if (!isOutOfDescriptors(error)) throw error;
    return withSpare(() => openAt(place, newFlags, mode), stay);
  }
}

/** A large one is open for as long as its pages take. */
function stayOf(byteSize: number): Stay {
  return byteSize <= limits.inlineBytes ? "short" : "long";
}

const sealed = Promise.resolve(true);

function openIfThere(path: string): number | undefined {
  try {
    return openFile(path, O_RDONLY | O_NOFOLLOW);
  } catch (error) {
    ignoreMissing(error);
    return undefined;
  }
}
