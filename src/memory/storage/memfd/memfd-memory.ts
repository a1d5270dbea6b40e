/** Pages of the `memfd` storage: allocated by descriptor, handed to whoever keeps them, and freed by the last close. */

import { closeSync, fchmodSync, fstatSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { limits } from "../../limits.ts";
import { hostPool } from "../../naming.ts";
import { askLocks } from "../../os/kernel-lease.ts";
import { fallocate } from "../../os/libc.ts";
import { writeMapped } from "../../os/libc-memory.ts";
import { privateModes, toMode } from "../access-modes.ts";
import type { DataAccess } from "../data-file.ts";
import type { HostLanes } from "../lane.ts";
import type { Access, Identity, LatePages, Memory, OnAllocationStep, Segment, Space, Usage } from "../storage.ts";
import { isForWantOfMemory } from "../want-of-memory.ts";
import { writeInSlices } from "../write-in-slices.ts";
import { type MemfdFiles, toIdentity } from "./memfd-files.ts";
import type { Memfd } from "./memfds.ts";

export class MemfdMemory implements Memory {
  readonly pool = hostPool;
  readonly pageSize: number;
  readonly #files: MemfdFiles;
  readonly #lanes: HostLanes;
  readonly #onStep: OnAllocationStep | undefined;
  /** Regions that are being written, whose pages come with that. */
  readonly #promised = new Set<string>();
  readonly #latePages: LatePages = {
    write: (token, byteSize, write) => this.#write(token, byteSize, write),
    complete: (token, byteSize, signal) => this.#complete(token, byteSize, signal),
  };

  constructor(files: MemfdFiles, lanes: HostLanes, onStep: OnAllocationStep | undefined) {
    this.#files = files;
    this.#lanes = lanes;
    this.#onStep = onStep;
    this.pageSize = files.pageSize;
  }

  space(): Space {
    return this.#files.space();
  }

  get elsewhereBytes(): number {
    let sum = 0;
    for (const [, { byteSize }] of this.#files.memfds.of(this.#files.form)) {
      sum += Math.ceil(byteSize / this.pageSize) * this.pageSize;
    }
    return sum;
  }

  /** Huge pages of a reserve of the machine's take no write(2). */
  get latePages(): LatePages | undefined {
    return this.#files.hugePage === null ? this.#latePages : undefined;
  }

  async allocate({ token, byteSize, header, isWritten = false }: Segment, signal: AbortSignal): Promise<Identity> {
    const { memfds, form } = this.#files;
    try {
      const { fd } = memfds.create(token, byteSize, form);
      this.#onStep?.("create.file-made");
      if (isWritten && this.latePages !== undefined && byteSize > limits.inlineBytes) this.#promise(token, byteSize);
      else await this.#allocatePages(fd, byteSize, signal);
      await this.#writeHeader(fd, header);
      this.#onStep?.("create.header-written");
      // From here on it outlives the server, if anybody holds it: what has no row by the next start is freed there.
      await memfds.holder?.keep(token, fd);
      return toIdentity(fd);
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    }
  }

  async #allocatePages(fd: number, byteSize: number, signal: AbortSignal): Promise<void> {
    // A huge page that nobody reserved is refused in words, and not where its errno is met.
    if (this.#files.hugePage !== null) this.#files.checkSpace(byteSize);
    const windowBytes = Math.max(limits.allocateWindowBytes, this.pageSize);
    if (byteSize <= limits.inlineBytes && this.pageSize <= limits.inlineBytes) {
      fallocate(fd, 0, byteSize);
      this.#onStep?.("create.window-allocated");
      return;
    }
    for (let done = 0; done < byteSize; done += windowBytes) {
      signal.throwIfAborted();
      // Others take memory meanwhile: stop at once, before the kernel ends a process for the last page.
      this.#files.checkSpace(byteSize - done);
      const window = { byteOffset: done, byteSize: Math.min(windowBytes, byteSize - done) };
      await this.#lanes.filling.run({ kind: "allocate", fd, ...window });
      this.#onStep?.("create.window-allocated");
    }
    signal.throwIfAborted();
  }

  /** Who else takes memory of the machine asks nobody, so that this is looked at again before each part. */
  #promise(token: string, byteSize: number): void {
    this.#files.checkSpace(byteSize);
    this.#promised.add(token);
    this.#onStep?.("create.pages-promised");
  }

  async #write<Result>(token: string, byteSize: number, write: () => Promise<Result>): Promise<Result> {
    if (this.#promised.has(token)) this.#checkPromised(token, byteSize);
    try {
      return await write();
    } catch (error) {
      throw isForWantOfMemory(error) ? this.#files.translate(error, byteSize) : error;
    }
  }

  #checkPromised(token: string, byteSize: number): void {
    // stat(2): `st_blocks` counts 512 bytes each.
    const allocatedBytes = fstatSync(this.#files.get(token).fd).blocks * 512;
    this.#files.checkSpace(Math.max(0, byteSize - allocatedBytes));
  }

  async #complete(token: string, byteSize: number, signal: AbortSignal): Promise<void> {
    if (!this.#promised.has(token)) return;
    const { fd } = this.#files.get(token);
    try {
      for (let done = 0; done < byteSize; done += limits.allocateWindowBytes) {
        signal.throwIfAborted();
        this.#checkPromised(token, byteSize);
        const window = { byteOffset: done, byteSize: Math.min(limits.allocateWindowBytes, byteSize - done) };
        await this.#lanes.filling.run({ kind: "allocate", fd, ...window });
        this.#onStep?.("create.window-allocated");
      }
      this.#promised.delete(token);
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    }
  }

  async #writeHeader(fd: number, header: Uint8Array): Promise<void> {
    if (this.#files.hugePage === null) return writeInSlices(fd, header, 0);
    for (let done = 0; done < header.length; done += limits.sliceBytes) {
      if (done > 0) await setImmediate();
      writeMapped(fd, done, header.subarray(done, done + limits.sliceBytes), this.pageSize);
    }
  }

  async discard(token: string): Promise<void> {
    const memfd = this.#files.memfds.find(token);
    if (memfd !== undefined && !memfd.isKept) await this.#letGo(token, memfd);
  }

  async discardAll(): Promise<void> {
    for (const [token] of [...this.#files.memfds.of(this.#files.form)]) await this.discard(token);
  }

  usage(token: string): Usage | undefined {
    const memfd = this.#files.memfds.find(token);
    if (memfd === undefined || !memfd.isKept) return undefined;
    // Our own descriptor holds no lock, so that it may ask.
    return { ...askLocks(memfd.fd), byteSize: memfd.byteSize };
  }

  /** An open file description that nobody shares, without locks, and the caller's to close. */
  openDescription(token: string, access: DataAccess): number {
    try {
      return this.#files.open(token, access);
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
  }

  descriptionPath(token: string): string {
    return `/proc/self/fd/${this.#files.get(token).fd}`;
  }

  setAccess(token: string, access: Access): void {
    const mode = toMode(privateModes, access);
    const { fd } = this.#files.get(token);
    try {
      fchmodSync(fd, mode);
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
  }

  /** In the Worker: the kernel looks at every page, and waits 166 ms for one that a device has pinned. */
  async seal(token: string): Promise<boolean> {
    const { fd } = this.#files.get(token);
    try {
      await this.#lanes.filling.run({ kind: "seal", fd });
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EBUSY") return false;
      throw this.#files.translate(error, 0);
    }
  }

  async free(token: string): Promise<"freed"> {
    const memfd = this.#files.memfds.find(token);
    if (memfd !== undefined) await this.#letGo(token, memfd);
    return "freed";
  }

  /** The fd holder lets go first: the last close frees the pages, and takes its time. */
  async #letGo(token: string, { fd, byteSize }: Memfd): Promise<void> {
    const { memfds } = this.#files;
    this.#promised.delete(token);
    await memfds.holder?.drop(token);
    // Another call may have come this far meanwhile.
    if (memfds.take(token) === undefined) return;
    if (byteSize <= limits.inlineBytes) closeSync(fd);
    else await this.#lanes.freeing.run({ kind: "close", fd });
  }
}
