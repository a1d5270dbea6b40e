/**
 * Regions as named files of a tmpfs: made in `new/`, kept by a hard link in `keep/`, published by another one in the
 * shared directory. It touches bytes by descriptor only and maps nothing, so no worker can kill it by truncating a file.
 */

import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { SystemError, TensordError } from "../error.ts";
import { toChunks } from "../layout/checksum.ts";
import { limits } from "../limits.ts";
import { tokenPattern } from "../naming.ts";
import { hasLease, hasWriter } from "../os/kernel-lease.ts";
import { fallocate } from "../os/libc.ts";
import { type DataAccess, DataFile } from "./data-file.ts";
import type { InstanceDirectory } from "./instance-directory.ts";
import { Lane } from "./lane.ts";
import type {
  Access,
  FileSystemRoom,
  Identity,
  KeptFile,
  NameState,
  OnAllocationStep,
  Segment,
  Storage,
  Usage,
} from "./storage.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

/** The sticky bit marks a sealed file, so that a client sees it from the mode alone. */
const modes: Record<Access, number> = { open: 0o660, sealed: 0o1440, "sealed-stock-writable": 0o1660 };
const accesses = new Map(Object.entries(modes).map(([access, mode]) => [mode, access as Access]));

export class ShmStorage implements Storage, Disposable {
  readonly pageSize: number;
  readonly #directory: InstanceDirectory;
  readonly #onStep: OnAllocationStep | undefined;
  /** Freeing has a lane of its own: one large unlink cannot be cut into windows and would hold up every allocation. */
  readonly #filling = new Lane();
  readonly #freeing = new Lane();

  constructor(directory: InstanceDirectory, onStep?: OnAllocationStep) {
    this.#directory = directory;
    this.#onStep = onStep;
    this.pageSize = statfsSync(directory.shmPath).bsize;
  }

  async allocate(segment: Segment, signal: AbortSignal): Promise<Identity> {
    const path = this.#directory.path("new", segment.token);
    const fd = this.#translated(() => openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, modes.open));
    try {
      this.#onStep?.("create.file-made");
      await this.#allocatePages(fd, segment.byteSize, signal);
      writeHeader(fd, segment.header);
      fchmodSync(fd, modes.open);
      this.#onStep?.("create.header-written");
      return identityOf(fstatSync(fd, { bigint: true }));
    } catch (error) {
      throw this.#translate(error, segment.byteSize);
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
      this.#checkRoom(byteSize - done);
      const windowBytes = Math.min(limits.allocateWindowBytes, byteSize - done);
      await this.#filling.run({ kind: "allocate", fd, byteOffset: done, byteSize: windowBytes });
      this.#onStep?.("create.window-allocated");
    }
    signal.throwIfAborted();
  }

  async discard(token: string, byteSize: number): Promise<void> {
    await this.#unlink(this.#directory.path("new", token), byteSize);
  }

  keep(token: string): void {
    this.#translated(() => renameSync(this.#directory.path("new", token), this.#directory.path("keep", token)));
  }

  publish(token: string): void {
    this.#translated(() => linkSync(this.#directory.path("keep", token), this.#directory.publicPath(token)));
  }

  isPublished(token: string, identity: Identity): boolean {
    const named = lstatSync(this.#directory.publicPath(token), { bigint: true, throwIfNoEntry: false });
    return named !== undefined && isSame(identityOf(named), identity);
  }

  withdraw(token: string, identity: Identity): void {
    if (this.isPublished(token, identity)) unlinkSync(this.#directory.publicPath(token));
  }

  usage(token: string): Usage | undefined {
    const fd = openIfThere(this.#directory.path("keep", token));
    if (fd === undefined) return undefined;
    try {
      return { leased: hasLease(fd), written: hasWriter(fd), byteSize: fstatSync(fd).size };
    } finally {
      closeSync(fd);
    }
  }

  async free(token: string, byteSize: number): Promise<"freed" | "hard-link"> {
    const path = this.#directory.path("keep", token);
    const kept = statSync(path, { throwIfNoEntry: false });
    if (kept === undefined) return "freed";
    if (kept.nlink > 1) return "hard-link";
    await this.#unlink(path, byteSize);
    return "freed";
  }

  setAccess(token: string, access: Access): void {
    const fd = this.#openKept(token);
    try {
      fchmodSync(fd, modes[access]);
    } finally {
      closeSync(fd);
    }
  }

  openData(token: string, access: DataAccess): DataFile {
    const path = this.#directory.path("keep", token);
    return this.#translated(() => DataFile.open(path, access, (error) => this.#translate(error, 0)));
  }

  async hash(token: string, dataOffset: number, byteSize: number, check: () => void): Promise<readonly bigint[]> {
    const fd = this.#openKept(token);
    try {
      const hashes: bigint[] = [];
      checkSize(fd, byteSize);
      for (const chunk of toChunks(dataOffset, byteSize - dataOffset)) {
        hashes.push(await this.#filling.run({ kind: "hash", fd, ...chunk }));
        check();
      }
      checkSize(fd, byteSize);
      return hashes;
    } catch (error) {
      throw this.#translate(error, byteSize);
    } finally {
      closeSync(fd);
    }
  }

  inspectName(token: string, identity: Identity): NameState {
    const name = this.#directory.publicPath(token);
    const kept = this.#directory.path("keep", token);
    const named = lstatSync(name, { bigint: true, throwIfNoEntry: false });
    if (named !== undefined && isSame(identityOf(named), identity)) return "intact";
    if (lstatSync(kept, { throwIfNoEntry: false }) === undefined) return "lost";
    try {
      if (named === undefined) {
        linkSync(kept, name);
        return "relinked";
      }
      this.#replaceForeign(token, name);
      return "replaced";
    } catch {
      return "blocked";
    }
  }

  /** link(2) cannot clobber and rename(2) can: a second link of ours is renamed over what stands in the name's place. */
  #replaceForeign(token: string, name: string): void {
    const spare = this.#directory.path("new", `${token}.name`);
    linkSync(this.#directory.path("keep", token), spare);
    try {
      renameSync(spare, name);
    } finally {
      // rename(2) onto another link of the same file does nothing and leaves the old name.
      unlinkIfThere(spare);
    }
  }

  room(): FileSystemRoom {
    const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(this.#directory.shmPath);
    // A tmpfs mounted with size=0 or nr_inodes=0 has no bound there, and says 0.
    const freeBytes = blocks === 0 ? Number.MAX_SAFE_INTEGER : bavail * bsize;
    const freeInodes = files === 0 ? Number.MAX_SAFE_INTEGER : ffree;
    const usedBytes = (blocks - bfree) * bsize;
    return { totalBytes: blocks * bsize, usedBytes, freeBytes, usedInodes: files - ffree, freeInodes };
  }

  kept(): readonly KeptFile[] {
    const folder = this.#directory.path("keep");
    return readdirSync(folder)
      .filter((name) => tokenPattern.test(name))
      .flatMap((token) => {
        const stat = lstatSync(folder + token, { bigint: true });
        if (!stat.isFile()) return [];
        const access = accesses.get(Number(stat.mode & 0o7777n));
        return [{ token, identity: identityOf(stat), byteSize: Number(stat.size), access }];
      });
  }

  async clearUnkept(): Promise<void> {
    const folder = this.#directory.path("new");
    for (const name of readdirSync(folder)) await this.#unlink(folder + name, statSync(folder + name).size);
  }

  readPrefix(token: string, byteSize: number): Uint8Array {
    const fd = this.#openKept(token);
    try {
      const prefix = new Uint8Array(byteSize);
      return prefix.subarray(0, readSync(fd, prefix, 0, byteSize, 0));
    } finally {
      closeSync(fd);
    }
  }

  async #unlink(path: string, byteSize: number): Promise<void> {
    if (byteSize <= limits.inlineBytes) unlinkIfThere(path);
    else await this.#freeing.run({ kind: "unlink", path }).catch(ignoreMissing);
  }

  #openKept(token: string): number {
    return this.#translated(() => openSync(this.#directory.path("keep", token), O_RDONLY | O_NOFOLLOW));
  }

  #checkRoom(byteSize: number): void {
    const { freeBytes } = this.room();
    if (byteSize > freeBytes) throw this.#full(byteSize, freeBytes);
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

  #translated<Result>(call: () => Result): Result {
    try {
      return call();
    } catch (error) {
      throw this.#translate(error, 0);
    }
  }

  /** Turns what the system said into a failure of the table, once; what is one already passes. */
  #translate(error: unknown, requestedBytes: number): unknown {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof TensordError || typeof code !== "string") return error;
    const room = this.room();
    if (code === "ENOSPC" && room.freeInodes < 2) {
      return new TensordError(
        "out-of-inodes",
        `Cannot make a file in ${this.#directory.shmDirectory}: no inode is free`,
        { errno: code, hint: "Delete regions or foreign files there, or mount it with a larger nr_inodes." },
        { cause: error },
      );
    }
    if (code === "ENOSPC") return this.#full(requestedBytes, room.freeBytes, error);
    if (error instanceof SystemError && code === "EOF") return truncated(requestedBytes, error);
    return new TensordError(
      "io-error",
      `Cannot work on a file in ${this.#directory.shmDirectory}: ${message}`,
      { errno: code, hint: "See the server's log; `tensord status` shows the file system's room." },
      { cause: error },
    );
  }

  [Symbol.dispose](): void {
    this.#filling[Symbol.dispose]();
    this.#freeing[Symbol.dispose]();
  }
}

function writeHeader(fd: number, header: Uint8Array): void {
  for (let done = 0; done < header.length; ) done += writeSync(fd, header, done, header.length - done, done);
}

function checkSize(fd: number, byteSize: number): void {
  const { size } = fstatSync(fd);
  if (size !== byteSize) throw truncated(byteSize, undefined, size);
}

function truncated(byteSize: number, cause: unknown, size?: number): TensordError {
  return new TensordError(
    "io-error",
    `Cannot read the region to its end: a worker changed its file's size${size === undefined ? "" : ` to ${size} bytes`}, ` +
      `want ${byteSize} bytes`,
    { hint: "Delete the region and create it again; no worker may truncate a region's file." },
    { cause },
  );
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, O_RDONLY | O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    ignoreMissing(error);
  }
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
}

function identityOf(stat: { readonly dev: bigint; readonly ino: bigint }): Identity {
  return { dev: stat.dev.toString(), ino: stat.ino.toString() };
}

function isSame(a: Identity, b: Identity): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}
