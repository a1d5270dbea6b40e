/**
 * The attach protocol (docs/protocol.md): open, lock, *then* check. The order is what makes it safe against a free or a
 * seal that happens at the same time. It knows files and locks; who is asked when a check fails is the caller's business.
 */

import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { isOutOfDescriptors, outOfDescriptors } from "../descriptors.ts";
import { TensordError } from "../errors.ts";
import { type Role, takeLease, takeWriterLease } from "./lease.ts";
import { type Access, Pages } from "./pages.ts";

// <fcntl.h>, the same on x86-64 and arm64; node:fs has no name for it.
const O_CLOEXEC = 0o2000000;
// A symbolic link, a FIFO and a terminal in the place of a region's file must neither be followed nor waited for.
const openFlags = O_CLOEXEC | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const absent = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENXIO", "EISDIR"]);
const forbidden = new Set(["EACCES", "EPERM", "EROFS"]);

const stickyBit = 0o1000n;
const writeBits = 0o220n;

/** Where a region's bytes should be. `dev` and `ino` are decimal; `byteSize` is what the file must at least have. */
export interface Place {
  readonly region: string;
  readonly path: string;
  readonly dev: string;
  readonly ino: string;
  readonly byteSize: number;
  /** Whether the region stands, by the server's word; it links a lost name back then. Without it nobody is asked. */
  readonly stands?: (() => Promise<boolean>) | undefined;
  /** As what this process maps it: a consumer, unless it says otherwise. */
  readonly role?: Role;
}

/** Somebody write-locks the lease byte of a sealed file: it can be mapped, and not be leased by a lock. */
export class Barred extends TensordError {}

type Difference = "sealed" | "truncated" | "other";

/** The path does not show what the caller was told. It may have been told too long ago: ask again. */
export class Mismatch extends Error {
  override readonly name = "Mismatch";
  readonly difference: Difference;
  readonly #place: Place;

  constructor(place: Place, seen: string, difference: Difference = "other") {
    super(`Cannot map region ${place.region}: ${place.path} ${seen}`);
    this.difference = difference;
    this.#place = place;
  }

  /** What is left to say when the other side insists. */
  toError(): TensordError {
    const { region, path, dev } = this.#place;
    const options = { cause: this };
    if (this.difference === "sealed") {
      return new TensordError("region-sealed", this.message, { ...options, hint: "map it for reading" });
    }
    if (this.difference === "truncated") {
      const hint = "delete the region and create it again";
      return new TensordError("mapping-failed", this.message, { ...options, hint });
    }
    const directory = dirname(path);
    let here: string;
    try {
      here = String(statSync(directory, { bigint: true }).dev);
    } catch (error) {
      return new TensordError(
        "wrong-namespace",
        `Cannot map region ${region}: ${directory} is not here (${codeOf(error)}), and the server's is device ${dev}`,
        { ...options, hint: "mount the same volume at that path in both containers" },
      );
    }
    if (here !== dev) {
      return new TensordError(
        "wrong-namespace",
        `Cannot map region ${region}: ${directory} here is device ${here}, the server's is ${dev}`,
        {
          ...options,
          hint: "mount the same volume in both containers",
          fields: { devHere: here, devServer: dev },
        },
      );
    }
    const hint = "the region was deleted or replaced: attach it by name again";
    return new TensordError("stale-ref", this.message, { ...options, hint });
  }
}

/**
 * Maps a range of the file at `place`, locked and checked; the locks live as long as the mapping does. After `Barred` it can
 * be mapped without a lock: its pages live as long as they are mapped, whatever the books say.
 * @throws Mismatch, Barred, TensordError `access-denied`, `mapping-failed`, `out-of-descriptors`; neither descriptor nor
 *   lock is left then
 */
export function mapPlace(
  place: Place,
  byteOffset: number,
  byteSize: number,
  access: Access,
  { isLeased = true } = {},
): Pages {
  return withOpened(place, access, isLeased, (fd) => {
    try {
      return new Pages(fd, byteOffset, byteSize, access);
    } catch (cause) {
      throw asMappingFailed(
        cause,
        `map region ${place.region}: ${codeOf(cause)} for ${byteSize} bytes of ${place.path}`,
        {
          hint: isOverLimit(cause)
            ? "this process locks its memory (mlockall), and ulimit -l leaves no room for more: raise it, or lock less"
            : "is the address space limited (ulimit -v), are there too many mappings (vm.max_map_count), or does " +
              "vm.overcommit_memory=2 count private mappings? Then { strict: true } helps a reader",
        },
      );
    }
  });
}

/** Maps the file at `place` over `pages`, in place. Throws as `mapPlace` does, and changes nothing then. */
export function remapPlace(place: Place, pages: Pages, access: Access): void {
  withOpened(place, access, true, (fd) => {
    try {
      pages.remap(fd, access);
    } catch (cause) {
      throw asMappingFailed(cause, `re-map region ${place.region}: ${codeOf(cause)} for ${place.path}`);
    }
  });
}

/**
 * A descriptor of the file at `place`, which is checked and holds no lock. The caller closes it.
 * @throws Mismatch, TensordError `access-denied`, `mapping-failed`, `out-of-descriptors`
 */
export function openChecked(place: Place, isWriter: boolean): number {
  const fd = open(place, isWriter);
  try {
    check(fd, place, isWriter);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Opens the file at `place`, locks it, and only then checks it; closes it after `use`. */
function withOpened<Result>(place: Place, access: Access, isLeased: boolean, use: (fd: number) => Result): Result {
  const isWriter = access === "write";
  const fd = open(place, isWriter);
  try {
    if (isLeased) lock(fd, place, isWriter);
    check(fd, place, isWriter);
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function open(place: Place, isWriter: boolean): number {
  try {
    return openSync(place.path, (isWriter ? constants.O_RDWR : constants.O_RDONLY) | openFlags);
  } catch (cause) {
    const code = codeOf(cause);
    if (absent.has(code)) throw new Mismatch(place, `cannot be opened here (${code})`);
    if (isOutOfDescriptors(cause)) throw outOfDescriptors(`open region ${place.region}`, cause);
    if (forbidden.has(code)) throw accessDenied(place, isWriter, cause);
    throw asMappingFailed(cause, `open region ${place.region}: ${code} for ${place.path}`);
  }
}

function lock(fd: number, place: Place, isWriter: boolean): void {
  try {
    takeLease(fd, place.role ?? "consumer");
    if (isWriter) takeWriterLease(fd);
  } catch (cause) {
    const code = codeOf(cause);
    const what = `map region ${place.region}: locking ${place.path} failed (${code})`;
    const hint =
      "another process write-locks the lease bytes of this file, or its file system has no such locks; " +
      "`tensord doctor` tells";
    const isBarred = (code === "EAGAIN" || code === "EACCES") && !isWriter && isSealed(fstatSync(fd, { bigint: true }));
    throw isBarred
      ? new Barred("mapping-failed", `Cannot ${what}`, { hint, cause })
      : asMappingFailed(cause, what, { hint });
  }
}

function check(fd: number, place: Place, isWriter: boolean): void {
  const opened = fstatSync(fd, { bigint: true });
  if (!opened.isFile()) throw new Mismatch(place, "is no regular file");
  let named: BigIntStats;
  try {
    named = lstatSync(place.path, { bigint: true });
  } catch (error) {
    throw new Mismatch(place, `went away meanwhile (${codeOf(error)})`);
  }
  for (const { dev, ino } of [opened, named]) {
    if (String(dev) === place.dev && String(ino) === place.ino) continue;
    throw new Mismatch(place, `is inode ${ino} of device ${dev}, want ${place.ino} of ${place.dev}`);
  }
  if (opened.size < place.byteSize) {
    const seen = `has ${opened.size} bytes, want ${place.byteSize}: somebody truncated it`;
    throw new Mismatch(place, seen, "truncated");
  }
  if (isWriter && isSealed(opened)) throw new Mismatch(place, "is sealed", "sealed");
}

/** Whether the file at `place` is a sealed one, as its mode says. Asks no server. */
export function isSealedAt({ path }: Place): boolean {
  const status = statSync(path, { bigint: true, throwIfNoEntry: false });
  return status !== undefined && isSealed(status);
}

function isSealed({ mode }: BigIntStats): boolean {
  return (mode & stickyBit) !== 0n || (mode & writeBits) === 0n;
}

/** What to throw when the file may not be opened: a sealed one refuses every writer but root. */
function accessDenied(place: Place, isWriter: boolean, cause: unknown): Error {
  let facts = "it cannot be looked at either";
  try {
    const status = lstatSync(place.path, { bigint: true });
    const isOurs = String(status.dev) === place.dev && String(status.ino) === place.ino;
    if (isWriter && isOurs && isSealed(status)) return new Mismatch(place, "is sealed", "sealed");
    facts = `it is uid ${status.uid}, gid ${status.gid}, mode ${(status.mode & 0o7777n).toString(8).padStart(4, "0")}`;
  } catch {
    // The first failure is the one to tell.
  }
  const groups = [...new Set([process.getegid?.() ?? -1, ...(process.getgroups?.() ?? [])])].sort((a, b) => a - b);
  return new TensordError(
    "access-denied",
    `Cannot open region ${place.region} for ${isWriter ? "writing" : "reading"}: ${codeOf(cause)} for ${place.path}; ` +
      `${facts}, and this process is uid ${process.geteuid?.()} in groups ${groups.join(", ")}`,
    { hint: "run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)", cause },
  );
}

function asMappingFailed(cause: unknown, what: string, { hint }: { readonly hint?: string } = {}): Error {
  if (cause instanceof TensordError) return cause;
  return new TensordError("mapping-failed", `Cannot ${what}`, { hint, cause });
}

/** mmap's answer to who has locked his address space and may not lock as much more. */
function isOverLimit(error: unknown): boolean {
  return codeOf(error) === "EAGAIN";
}

/** The errno's name, or what else there is to say. */
function codeOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException).code ?? error);
}
