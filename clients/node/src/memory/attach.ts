/**
 * The attach protocol (docs/protocol.md), by name: open, lock, *then* check. The order is what makes it safe against a free or a
 * seal that happens at the same time. It knows files and locks; who is asked when a check fails is the caller's business, and
 * whether there is another way to the file `open.ts`'s.
 */

import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { isOutOfDescriptors, outOfDescriptors } from "../descriptors.ts";
import { TensordError } from "../errors.ts";
import type { DescriptorSource } from "./descriptor-source.ts";
import { type Role, takeLease, takeWriterLease } from "./lease.ts";
import type { LocalMemory } from "./local-memory.ts";

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
  /** Null where it has no name. */
  readonly path: string | null;
  readonly dev: string;
  readonly ino: string;
  readonly byteSize: number;
  /** Whether the region stands, by the server's word; it links a lost name back then. Without it nobody is asked. */
  readonly stands?: (() => Promise<boolean>) | undefined;
  /** The server was asked by now, and says that it stands just there: a name that is not there cannot be reached. */
  readonly isSure?: boolean;
  /** As what this process maps it: a consumer, unless it says otherwise. */
  readonly role?: Role;
  /** What it is made of: `shm`, unless it says otherwise. */
  readonly storage?: string | undefined;
  /** Whose region it is, where no path says it. */
  readonly instance?: string | undefined;
  /** Who hands its file out where its name cannot be reached. */
  readonly broker?: DescriptorSource | undefined;
  /** When the file was last written, in ns since the epoch, of one that is somebody else's. */
  readonly mtimeNs?: string | null | undefined;
  /** This process's own memory for it, where no process maps the region. */
  readonly copy?: LocalMemory | undefined;
}

/** A place with a name. */
export type NamedPlace = Place & { readonly path: string };

/** Somebody write-locks the lease byte of a sealed file: it can be mapped, and not be leased by a lock. */
export class Barred extends TensordError {}

/** `gone`: by the server's word. `elsewhere`: of a file of somebody else's, this process sees another one. */
type Difference = "sealed" | "truncated" | "gone" | "elsewhere" | "other";

/** The path does not show what the caller was told. It may have been told too long ago: ask again. */
export class Mismatch extends Error {
  override readonly name = "Mismatch";
  readonly difference: Difference;
  readonly #place: Place;
  /** Why there was no other way to the file, if there is none. */
  #noBroker: TensordError | undefined;

  constructor(place: Place, seen: string, difference: Difference = "other") {
    super(`Cannot map region ${place.region}: ${place.path ?? "its file"} ${seen}`);
    this.difference = difference;
    this.#place = place;
  }

  /** @returns itself, which says so from now on */
  without(broker: TensordError): this {
    this.#noBroker = broker;
    return this;
  }

  get noBroker(): TensordError | undefined {
    return this.#noBroker;
  }

  get region(): string {
    return this.#place.region;
  }

  /** Whether this process sees another file system than the server, or none, where the name should be. */
  get isElsewhere(): boolean {
    const { path, dev } = this.#place;
    if (path === null || this.difference !== "other") return false;
    return String(statSync(dirname(path), { bigint: true, throwIfNoEntry: false })?.dev) !== dev;
  }

  /** What is left to say when the other side insists. */
  toError(): TensordError {
    const error = this.#toError();
    return this.#noBroker === undefined ? error : neither(error, this.#noBroker);
  }

  #toError(): TensordError {
    const { region, path, dev } = this.#place;
    const options = { cause: this };
    if (this.difference === "sealed") {
      return new TensordError("region-sealed", this.message, { ...options, hint: "map it for reading" });
    }
    if (this.difference === "truncated") {
      const hint = "delete the region and create it again";
      return new TensordError("mapping-failed", this.message, { ...options, hint });
    }
    if (this.difference === "elsewhere") {
      return new TensordError("wrong-namespace", `${this.message}; the server sees the file that it has loaded`, {
        ...options,
        hint: 'mount the same folder at that path in both containers, or load it with mode: "copy"',
      });
    }
    const staleHint = "the region was deleted or replaced: attach it by name again";
    if (this.difference === "gone" || path === null) {
      return new TensordError("stale-ref", this.message, { ...options, hint: staleHint });
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
    return new TensordError("stale-ref", this.message, { ...options, hint: staleHint });
  }
}

/** What to say where neither the name nor the broker led to a region's file: both reasons, and both cures. */
export function neither(byName: TensordError, byDescriptor: TensordError): TensordError {
  const { code, status, fields, detail, cause } = byName;
  return new TensordError(code, `${detail}. Nor does the broker hand it out: ${byDescriptor.detail}`, {
    status,
    fields,
    hint: [...new Set([byName.hint, byDescriptor.hint])]
      .filter((hint) => hint !== undefined)
      .join("; or, for the broker: "),
    cause,
  });
}

/**
 * A descriptor of the file at `place`, which is checked, and of which the lease is taken if that is asked for. The caller closes it.
 * @throws Mismatch, Barred, TensordError `access-denied`, `mapping-failed`, `out-of-descriptors`; neither descriptor nor
 *   lock is left then
 */
export function openByName(place: NamedPlace, isWriter: boolean, isLeased: boolean): number {
  const fd = open(place, isWriter);
  try {
    if (isLeased) lock(fd, place, isWriter);
    check(fd, place, isWriter);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * That a descriptor that was handed out is of the file at `place`; who handed it out has locked it, and looked at it after that.
 * @throws Mismatch
 */
export function checkHanded(fd: number, place: Place): void {
  const status = fstatSync(fd, { bigint: true });
  if (!status.isFile()) throw new Mismatch(place, "is no regular file", "gone");
  checkIdentity(status, place, "gone");
  checkSize(status, place);
}

function open(place: NamedPlace, isWriter: boolean): number {
  try {
    return openSync(place.path, (isWriter ? constants.O_RDWR : constants.O_RDONLY) | openFlags);
  } catch (cause) {
    const code = codeOf(cause);
    if (absent.has(code)) throw new Mismatch(place, `cannot be opened here (${code})`);
    if (isOutOfDescriptors(cause)) throw outOfDescriptors(`open region ${place.region}`, cause);
    if (forbidden.has(code)) throw accessDenied(place, isWriter, cause);
    throw mappingFailed(cause, `open region ${place.region}: ${code} for ${place.path}`);
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
    throw isBarred ? new Barred("mapping-failed", `Cannot ${what}`, { hint, cause }) : mappingFailed(cause, what, hint);
  }
}

function check(fd: number, place: NamedPlace, isWriter: boolean): void {
  const opened = fstatSync(fd, { bigint: true });
  if (!opened.isFile()) throw new Mismatch(place, "is no regular file");
  let named: BigIntStats;
  try {
    named = lstatSync(place.path, { bigint: true });
  } catch (error) {
    throw new Mismatch(place, `went away meanwhile (${codeOf(error)})`);
  }
  for (const status of [opened, named]) checkIdentity(status, place, "other");
  checkSize(opened, place);
  if (isWriter && isSealed(opened)) throw new Mismatch(place, "is sealed", "sealed");
}

function checkIdentity({ dev, ino }: BigIntStats, place: Place, difference: Difference): void {
  if (String(dev) === place.dev && String(ino) === place.ino) return;
  throw new Mismatch(place, `is inode ${ino} of device ${dev}, want ${place.ino} of ${place.dev}`, difference);
}

function checkSize({ size }: BigIntStats, place: Place): void {
  if (size >= place.byteSize) return;
  throw new Mismatch(place, `has ${size} bytes, want ${place.byteSize}: somebody truncated it`, "truncated");
}

/** Whether the file at `place` is a sealed one, as its mode says; false where it cannot be looked at. Asks no server. */
export function isSealedAt({ path }: Place): boolean {
  if (path === null) return false;
  try {
    return isSealed(statSync(path, { bigint: true }));
  } catch {
    return false;
  }
}

function isSealed({ mode }: BigIntStats): boolean {
  return (mode & stickyBit) !== 0n || (mode & writeBits) === 0n;
}

/** What to throw when the file may not be opened: a sealed one refuses every writer but root. */
function accessDenied(place: NamedPlace, isWriter: boolean, cause: unknown): Error {
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

/** @param what could not be done: "map region …". */
export function mappingFailed(cause: unknown, what: string, hint?: string): Error {
  if (cause instanceof TensordError) return cause;
  return new TensordError("mapping-failed", `Cannot ${what}`, { hint, cause });
}

/** The errno's name, or what else there is to say. */
export function codeOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException).code ?? error);
}
