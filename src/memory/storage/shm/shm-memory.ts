/** Pages of the `shm` storage: files of a tmpfs, made in `new/`, asked for their locks, and freed by their last unlink. */

import { closeSync, constants, fchmodSync, fstatSync, statfsSync, statSync } from "node:fs";
import { limits } from "../../limits.ts";
import { hostPool } from "../../naming.ts";
import { listDirectory, openFile } from "../../os/files.ts";
import { askLocks } from "../../os/kernel-lease.ts";
import { fallocate } from "../../os/libc.ts";
import { toMode } from "../access-modes.ts";
import type { DataAccess } from "../data-file.ts";
import type { HostLanes } from "../lane.ts";
import type { Access, Identity, Memory, OnAllocationStep, Segment, Space, Usage } from "../storage.ts";
import { writeInSlices } from "../write-in-slices.ts";
import { ignoreMissing, type ShmFiles, toIdentity, unlinkIfThere } from "./shm-files.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

export class ShmMemory implements Memory {
  readonly pool = hostPool;
  readonly pageSize: number;
  readonly #files: ShmFiles;
  readonly #lanes: HostLanes;
  readonly #onStep: OnAllocationStep | undefined;

  constructor(files: ShmFiles, lanes: HostLanes, onStep: OnAllocationStep | undefined) {
    this.#files = files;
    this.#lanes = lanes;
    this.#onStep = onStep;
    this.pageSize = statfsSync(files.newPath()).bsize;
  }

  readonly elsewhereBytes = 0;

  space(): Space {
    return this.#files.space();
  }

  async allocate(segment: Segment, signal: AbortSignal): Promise<Identity> {
    const path = this.#files.newPath(segment.token);
    const flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
    // A large one is open for as long as its pages take.
    const stay = segment.byteSize <= limits.inlineBytes ? "short" : "long";
    const fd = this.#files.translated(() => openFile(path, flags, this.#files.modes.open, stay));
    try {
      this.#onStep?.("create.file-made");
      await this.#allocatePages(fd, segment.byteSize, signal);
      await writeInSlices(fd, segment.header, 0);
      // The umask may have taken some of it.
      fchmodSync(fd, this.#files.modes.open);
      this.#onStep?.("create.header-written");
      return toIdentity(fstatSync(fd, { bigint: true }));
    } catch (error) {
      throw this.#files.translate(error, segment.byteSize);
    } finally {
      closeSync(fd);
    }
  }

  async #allocatePages(fd: number, byteSize: number, signal: AbortSignal): Promise<void> {
    if (byteSize <= limits.inlineBytes) {
      fallocate(fd, 0, byteSize);
      this.#onStep?.("create.window-allocated");
      return;
    }
    for (let done = 0; done < byteSize; done += limits.allocateWindowBytes) {
      signal.throwIfAborted();
      // Somebody else may fill the file system meanwhile: stop at once instead of taking its last page.
      this.#files.checkSpace(byteSize - done);
      const windowBytes = Math.min(limits.allocateWindowBytes, byteSize - done);
      await this.#lanes.filling.run({ kind: "allocate", fd, byteOffset: done, byteSize: windowBytes });
      this.#onStep?.("create.window-allocated");
    }
    signal.throwIfAborted();
  }

  async discard(token: string, byteSize: number): Promise<void> {
    await this.#unlink(this.#files.newPath(token), byteSize);
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

  /** Of a file in a file system the kernel has no such word: its mode, and no writer's lock, are all there is. */
  seal(): Promise<boolean> {
    return sealed;
  }

  async free(token: string, byteSize: number): Promise<"freed" | "hard-link"> {
    const path = this.#files.keptPath(token);
    const kept = this.#files.translated(() => statSync(path, { throwIfNoEntry: false }));
    if (kept === undefined) return "freed";
    if (kept.nlink > 1) return "hard-link";
    await this.#unlink(path, byteSize);
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

const sealed = Promise.resolve(true);

function openIfThere(path: string): number | undefined {
  try {
    return openFile(path, O_RDONLY | O_NOFOLLOW);
  } catch (error) {
    ignoreMissing(error);
    return undefined;
  }
}
