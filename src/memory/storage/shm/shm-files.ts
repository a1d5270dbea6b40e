/**
 * What all parts of the `shm` storage share: where its files lie, how one is opened, and what a refusal of the system
 * means. The translation to failures of the table is here, once.
 */

import { closeSync, constants, fstatSync, statfsSync, unlinkSync } from "node:fs";
import { SystemError, TensordError } from "../../error.ts";
import { roundUpToPage } from "../../host/capacity.ts";
import { tokenPattern } from "../../naming.ts";
import { type Stay, toOutOfDescriptors } from "../../os/descriptors.ts";
import { listDirectory, openFile } from "../../os/files.ts";
import type { Place } from "../../os/libc-names.ts";
import { type AccessModes, namedModes, privateModes } from "../access-modes.ts";
import type { DataAccess } from "../data-file.ts";
import type { Files } from "../file-bytes.ts";
import { outOfInodes } from "../inodes.ts";
import type { InstanceDirectory } from "../instance-directory.ts";
import { resized } from "../resized.ts";
import type { Identity, Space } from "../storage.ts";
import { PromisedPages } from "./promised-pages.ts";

const { O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

/** What a private file is called in the keeper, behind its token: a server that knows of none leaves it alone. */
const privateSuffix = ".private";

export class ShmFiles implements Files {
  readonly #directory: InstanceDirectory;
  readonly isPrivate: boolean;
  readonly modes: AccessModes;
  readonly keptDescriptors = 0;
  /** Files in `new/` that are called otherwise than what will be made of them: segments that were taken, by token. */
  readonly #taken = new Map<string, string>();
  /** Of all storages of the directory. */
  readonly #promised: PromisedPages;

  constructor(directory: InstanceDirectory, isPrivate: boolean, promised = new PromisedPages()) {
    this.#promised = promised;
    this.#directory = directory;
    this.isPrivate = isPrivate;
    this.modes = isPrivate ? privateModes : namedModes;
  }

  /** A file on its way to become a region, or a spare name; without a name the folder. */
  newPath(name = ""): string {
    return this.#directory.path("new", this.#taken.get(name) ?? name);
  }

  newPlace(name: string): Place {
    return this.#directory.place("new", this.#taken.get(name) ?? name);
  }

  /** From here on the file `name` in `new/` is the one that becomes the region, until it is kept or discarded. */
  takeFor(token: string, name: string): void {
    this.#taken.set(token, name);
  }

  /** There is no such file any more. */
  forgetTaken(token: string): void {
    this.#taken.delete(token);
  }

  /** The keeper's link. */
  keptPath(token: string): string {
    return this.#directory.path("keep", this.#toKeptName(token));
  }

  keptPlace(token: string): Place {
    return this.#directory.place("keep", this.#toKeptName(token));
  }

  #toKeptName(token: string): string {
    return this.isPrivate ? token + privateSuffix : token;
  }

  /** The tokens of what is kept. */
  keptTokens(): string[] {
    const names = listDirectory(this.#directory.path("keep"));
    if (!this.isPrivate) return names.filter((name) => tokenPattern.test(name));
    return names
      .filter((name) => name.endsWith(privateSuffix))
      .map((name) => name.slice(0, -privateSuffix.length))
      .filter((token) => tokenPattern.test(token));
  }

  open(token: string, access: DataAccess, stay: Stay = "short"): number {
    return openFile(this.keptPath(token), O_NOFOLLOW | (access === "write" ? O_RDWR : O_RDONLY), undefined, stay);
  }

  sizeOf(_token: string, fd: number): number {
    return fstatSync(fd).size;
  }

  publicPath(token: string): string {
    return this.#directory.publicPath(token);
  }

  publicPlace(token: string): Place {
    return this.#directory.publicPlace(token);
  }

  /** Opens the keeper's link for reading while `use` runs. */
  withKept<Result>(token: string, use: (fd: number) => Result): Result {
    return this.translated(() => {
      const fd = this.open(token, "read");
      try {
        return use(fd);
      } finally {
        closeSync(fd);
      }
    });
  }

  /** What was promised is not free, though its pages have not come yet. */
  space(): Space {
    const { usedBytes, freeBytes, ...space } = this.#measure();
    const { bytes } = this.#promised;
    return { ...space, usedBytes: usedBytes + bytes, freeBytes: Math.max(0, freeBytes - bytes) };
  }

  #measure(): Space {
    const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(this.#directory.shmPath);
    // A tmpfs mounted with size=0 or nr_inodes=0 has no bound there, and says 0.
    const freeBytes = blocks === 0 ? Number.MAX_SAFE_INTEGER : bavail * bsize;
    const freeInodes = files === 0 ? Number.MAX_SAFE_INTEGER : ffree;
    const usedBytes = (blocks - bfree) * bsize;
    return { totalBytes: blocks * bsize, usedBytes, freeBytes, usedInodes: files - ffree, freeInodes };
  }

  /** @throws TensordError `out-of-shared-memory` if `byteSize` bytes are more than there are. */
  checkSpace(byteSize: number): void {
    const { freeBytes } = this.space();
    if (byteSize > freeBytes) throw this.#full(byteSize, freeBytes);
  }

  /** From here on the file's pages are promised: to be written to, or to be completed. @throws as `checkSpace`. */
  promise(token: string, fd: number, byteSize: number, pageSize: number): void {
    const wholeBytes = roundUpToPage(byteSize, pageSize);
    this.checkSpace(wholeBytes - allocatedBytesOf(fd));
    const paths = () => [this.newPath(token), this.keptPath(token)];
    this.#promised.add(token, { byteSize: wholeBytes, paths });
  }

  isPromised(token: string): boolean {
    return this.#promised.has(token);
  }

  forgetPromise(token: string): void {
    this.#promised.delete(token);
  }

  /** @throws TensordError `out-of-shared-memory` if others have taken what was promised. */
  checkPromised(token: string): void {
    if (!this.#promised.has(token)) return;
    const { freeBytes } = this.#measure();
    const { bytes } = this.#promised;
    const ownBytes = this.#promised.of(token);
    if (freeBytes < bytes && ownBytes > 0) throw this.#full(ownBytes, Math.max(0, freeBytes - bytes + ownBytes));
  }

  /** Runs `call`, and makes a failure of the table of what the system says. */
  translated<Result>(call: () => Result): Result {
    try {
      return call();
    } catch (error) {
      throw this.translate(error, 0);
    }
  }

  /** Turns what the system said into a failure of the table; what is one already passes. */
  translate(error: unknown, requestedBytes: number): unknown {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof TensordError || typeof code !== "string") return error;
    const outOfDescriptors = toOutOfDescriptors(error);
    if (outOfDescriptors !== undefined) return outOfDescriptors;
    const space = this.space();
    if (code === "ENOSPC" && space.freeInodes < 2) {
      return outOfInodes("make a file", this.#directory.shmDirectory, { cause: error });
    }
    if (code === "ENOSPC") return this.#full(requestedBytes, space.freeBytes, error);
    if (error instanceof SystemError && code === "EOF") {
      return resized("Cannot read the region to its end", undefined, requestedBytes, {}, error);
    }
    return new TensordError(
      "io-error",
      `Cannot work on a file in ${this.#directory.shmDirectory}: ${message}`,
      { errno: code, hint: "See the server's log; `tensord status` shows the file system's space." },
      { cause: error },
    );
  }

  #full(requestedBytes: number, freeBytes: number, cause?: unknown): TensordError {
    const where = this.#directory.shmDirectory;
    return new TensordError(
      "out-of-shared-memory",
      `Cannot allocate ${requestedBytes} bytes in ${where}: ${freeBytes} bytes are free`,
      {
        requested_bytes: requestedBytes,
        available_bytes: freeBytes,
        errno: "ENOSPC",
        hint: `Delete regions, remove foreign files from ${where} (ls -l ${where}), or mount it larger.`,
      },
      { cause },
    );
  }
}

/** What the pages of an open file take. stat(2): `st_blocks` counts 512 bytes each. */
export function allocatedBytesOf(fd: number): number {
  return fstatSync(fd).blocks * 512;
}

export function toIdentity(stat: { readonly dev: bigint; readonly ino: bigint }): Identity {
  return { dev: stat.dev.toString(), ino: stat.ino.toString() };
}

/** Of an open file, without the eighteen big integers of a whole answer where its numbers are exact without them. */
export function readIdentity(fd: number): Identity {
  const { dev, ino } = fstatSync(fd);
  // What was rounded is above what is exact.
  if (Number.isSafeInteger(dev) && Number.isSafeInteger(ino)) return { dev: String(dev), ino: String(ino) };
  return toIdentity(fstatSync(fd, { bigint: true }));
}

export function isSame(a: Identity, b: Identity): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

export function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    ignoreMissing(error);
  }
}

export function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
}
