/**
 * An instance's private directory, held by descriptors and locked for one server at a time, and every path below it.
 * All paths go through the held descriptors, so moving a directory away fools nobody. It knows no region.
 */

import { closeSync, constants, fstatSync, lstatSync, mkdirSync, openSync, rmdirSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { toFileName } from "../naming.ts";
import { toOutOfDescriptors } from "../os/descriptors.ts";
import type { Place } from "../os/libc-names.ts";
import { socketName } from "./fd-holder/protocol.ts";
import { freeInodes, outOfInodes, sparePaths } from "./inodes.ts";
import { takeLock } from "./instance-lock.ts";

const { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

const privateFolders = ["new", "keep", "store"] as const;
type PrivateFolder = (typeof privateFolders)[number];

export interface InstanceLocation {
  /** Where public names are made; a tmpfs such as `/dev/shm`. */
  readonly shmDirectory: string;
  readonly instance: string;
  /** Where a service manager listens for the fd holder; undefined: a server starts it, and its socket is the instance's. */
  readonly holderSocket?: string | undefined;
}

interface HeldDirectories {
  readonly shm: number;
  readonly own: number;
  readonly lock: number;
  readonly folders: Readonly<Record<PrivateFolder, number>>;
}

export class InstanceDirectory implements Disposable {
  readonly instance: string;
  readonly shmDirectory: string;
  readonly #holderSocket: string | undefined;
  readonly #shm: number;
  readonly #own: number;
  /** The descriptor that owns the instance's lock: whoever has a copy of it can show that it speaks for this server. */
  readonly lock: number;
  readonly #folders: Readonly<Record<PrivateFolder, number>>;
  readonly #descriptors: readonly number[];

  private constructor(location: InstanceLocation, { shm, own, lock, folders }: HeldDirectories, descriptors: number[]) {
    this.instance = location.instance;
    this.shmDirectory = location.shmDirectory;
    this.#holderSocket = location.holderSocket;
    this.#shm = shm;
    this.#own = own;
    this.lock = lock;
    this.#folders = folders;
    this.#descriptors = descriptors;
  }

  /**
   * Opens the instance's directory, makes what is missing, and takes its lock until disposed.
   * @throws TensordError `io-error` if another server holds it, or a directory's owner or mode is not its own.
   */
  static open(location: InstanceLocation): InstanceDirectory {
    const { instance, holderSocket } = location;
    const place = { instance, holderSocket, shmDirectory: resolve(location.shmDirectory) };
    // Whoever purges the instance removes the lock file last; a lock on a removed file guards nothing, so try again.
    for (let attempt = 0; attempt < 10; attempt++) {
      const opened = InstanceDirectory.#tryOpen(place);
      if (opened !== undefined) return opened;
    }
    throw new TensordError("io-error", `Cannot lock instance ${place.instance}: its lock file keeps being removed`, {
      hint: "Wait until no other process purges this instance, then start again.",
    });
  }

  static #tryOpen(place: InstanceLocation): InstanceDirectory | undefined {
    const descriptors: number[] = [];
    const hold = (fd: number) => {
      descriptors.push(fd);
      return fd;
    };
    try {
      const shm = hold(openShmDirectory(place.shmDirectory));
      const shown = toInstancePath(place);
      checkFirstStart(`/proc/self/fd/${shm}/`, place);
      const own = hold(openOwnDirectory(`/proc/self/fd/${shm}/tensord.${place.instance}`, shown, 0o750));
      const lock = hold(openLock(own, place));
      takeLock(lock, `/proc/self/fd/${own}/`, place.instance);
      if (!isSameFile(lock, `/proc/self/fd/${own}/lock`)) {
        for (const fd of descriptors) closeSync(fd);
        return undefined;
      }
      const folders = Object.fromEntries(
        privateFolders.map((name) => [
          name,
          hold(openOwnDirectory(`/proc/self/fd/${own}/${name}`, `${shown}/${name}`, 0o700)),
        ]),
      ) as Record<PrivateFolder, number>;
      return new InstanceDirectory(place, { shm, own, lock, folders }, descriptors);
    } catch (error) {
      for (const fd of descriptors) closeSync(fd);
      throw error;
    }
  }

  /** The public name's path as this process reaches it, by the held descriptor. */
  publicPath(token: string): string {
    return `/proc/self/fd/${this.#shm}/${toFileName(this.instance, token)}`;
  }

  /** The same for calls that take a directory and a name. */
  publicPlace(token: string): Place {
    return { directory: this.#shm, name: toFileName(this.instance, token) };
  }

  /** The public name's path as clients open it. */
  advertisedPath(token: string): string {
    return `${this.shmDirectory}/${toFileName(this.instance, token)}`;
  }

  /** The POSIX name for `shm_open`, or null outside `/dev/shm`, where that call does not look. */
  shmName(token: string): string | null {
    return this.shmDirectory === "/dev/shm" ? `/${toFileName(this.instance, token)}` : null;
  }

  path(folder: PrivateFolder, name = ""): string {
    return `/proc/self/fd/${this.#folders[folder]}/${name}`;
  }

  /** The same for calls that take a directory and a name. */
  place(folder: PrivateFolder, name: string): Place {
    return { directory: this.#folders[folder], name };
  }

  /** The instance's own directory, by descriptor. */
  get ownPath(): string {
    return `/proc/self/fd/${this.#own}/`;
  }

  /** What proves names and owners: beside the journal's folder, since it is for when that is lost. */
  get proofsPath(): string {
    return `${this.ownPath}proofs`;
  }

  /** Where the fd holder listens, if there is one. */
  get holderPath(): string {
    return this.#holderSocket ?? `${this.ownPath}${socketName}`;
  }

  get isHolderManaged(): boolean {
    return this.#holderSocket !== undefined;
  }

  /** The directory of public names, by descriptor: to watch it and to ask its file system. */
  get shmPath(): string {
    return `/proc/self/fd/${this.#shm}/`;
  }

  /** The instance's own directory as clients find it. */
  get advertisedDirectory(): string {
    return toInstancePath(this);
  }

  /**
   * Removes the directory itself, once its keeper is empty. The lock goes last, so that a server which waits for it finds
   * it gone and begins anew.
   */
  remove(): void {
    const { ownPath } = this;
    for (const name of ["new", "keep"]) rmdirSync(ownPath + name);
    rmSync(`${ownPath}store`, { recursive: true });
    const files = [
      `${ownPath}http.sock`,
      `${ownPath}broker.sock`,
      `${ownPath}${socketName}`,
      this.proofsPath,
      ...sparePaths(ownPath),
      `${ownPath}lock`,
    ];
    for (const path of files) rmSync(path, { force: true });
    rmdirSync(`/proc/self/fd/${this.#shm}/tensord.${this.instance}`);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#descriptors) closeSync(fd);
  }
}

export function toInstancePath(location: InstanceLocation): string {
  return `${location.shmDirectory}/tensord.${location.instance}`;
}

/**
 * Checks a Unix socket's path against the kernel's limit before bind(2) would cut it.
 * @throws TensordError `validation-failed` with the path and what to shorten.
 */
export function checkSocketPath(path: string): string {
  const byteSize = Buffer.byteLength(path);
  if (byteSize <= limits.socketPathBytes) return path;
  throw new TensordError(
    "validation-failed",
    `Cannot listen on ${path}: the path is ${byteSize} bytes, want at most ${limits.socketPathBytes} (unix(7))`,
    { hint: "Choose a shorter TENSORD_SOCKET, TENSORD_SHM_DIR or TENSORD_INSTANCE." },
  );
}

function openShmDirectory(path: string): number {
  try {
    return openSync(path, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    const outOfDescriptors = toOutOfDescriptors(error);
    if (outOfDescriptors !== undefined) throw outOfDescriptors;
    const { code = "unknown" } = error as NodeJS.ErrnoException;
    throw new TensordError(
      "io-error",
      `Cannot open the shared memory directory ${path}: ${code}`,
      { errno: code, hint: "Mount a tmpfs there, or set TENSORD_SHM_DIR to a directory on one." },
      { cause: error },
    );
  }
}

/** What a first start makes it makes whole or not at all: half of an instance would take the inodes that others need. */
function checkFirstStart(shmPath: string, place: InstanceLocation): void {
  const free = freeInodes(shmPath);
  if (free >= limits.firstStartInodes) return;
  if (lstatSync(`${shmPath}tensord.${place.instance}`, { throwIfNoEntry: false }) !== undefined) return;
  const what = ` for all that a first start makes: ${limits.firstStartInodes} are wanted, ${free} are left`;
  throw outOfInodes(`make instance ${place.instance}`, place.shmDirectory, { what });
}

function openLock(own: number, place: InstanceLocation): number {
  const path = `/proc/self/fd/${own}/lock`;
  try {
    return openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  } catch (error) {
    throw cannotOpen("open", `${toInstancePath(place)}/lock`, error, "file");
  }
}

/** Opens a directory that must be ours alone, making it if it is missing. `shown` is its path as people know it. */
function openOwnDirectory(path: string, shown: string, mode: number): number {
  const fd = openOrMake(path, shown, mode);
  try {
    checkOwn(fd, shown, mode);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function checkOwn(fd: number, shown: string, mode: number): void {
  const stat = fstatSync(fd);
  const uid = process.geteuid?.();
  // A setgid parent (Kubernetes' fsGroup) hands its bit and group on; the other bits must be as we make them.
  const actual = stat.mode & 0o777;
  if (stat.uid === uid && actual === mode) return;
  throw new TensordError(
    "io-error",
    `Cannot use ${shown}: it belongs to uid ${stat.uid} with mode ${actual.toString(8)}, ` +
      `want uid ${uid} and mode ${mode.toString(8)}`,
    { hint: "Another user made this directory, or its mode was changed. Choose another TENSORD_INSTANCE, or mend it." },
  );
}

function openOrMake(path: string, shown: string, mode: number): number {
  // The mode must be right from birth: a crash between mkdir and chmod would leave a directory that we refuse.
  const umask = process.umask(0o007);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw cannotOpen("make", shown, error);
  } finally {
    process.umask(umask);
  }
  try {
    return openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch (error) {
    throw cannotOpen("open", shown, error);
  }
}

/** Why a directory or a file could not be made or opened, and what to do. `shown` is its path as people know it. */
export function cannotOpen(verb: "make" | "open", shown: string, cause: unknown, kind = "directory"): TensordError {
  const outOfDescriptors = toOutOfDescriptors(cause);
  if (outOfDescriptors !== undefined) return outOfDescriptors;
  const { code = "unknown" } = cause as NodeJS.ErrnoException;
  const above = dirname(shown);
  if (code === "ENOSPC" && freeInodes(above) === 0)
    return outOfInodes(`${verb} the ${kind} ${shown}`, above, { cause });
  const owner = code === "EACCES" ? lstatSync(shown, { throwIfNoEntry: false })?.uid : undefined;
  const hints: Record<string, string> = {
    EACCES:
      owner === undefined
        ? `Give uid ${process.geteuid?.()} write permission on the directory above it.`
        : `It belongs to uid ${owner}, and this is uid ${process.geteuid?.()}: choose another TENSORD_INSTANCE.`,
    ENOSPC: "The file system is full: free memory there.",
    ENOTDIR: "Something that is no directory stands in its place: remove it, or choose another TENSORD_INSTANCE.",
    EISDIR: "A directory stands in its place: remove it, or choose another TENSORD_INSTANCE.",
    ELOOP: "A symbolic link stands in its place: remove it, or choose another TENSORD_INSTANCE.",
  };
  return new TensordError(
    "io-error",
    `Cannot ${verb} the ${kind} ${shown}: ${code}`,
    { errno: code, hint: hints[code] ?? "Check the directory above it." },
    { cause },
  );
}

function isSameFile(fd: number, path: string): boolean {
  const held = fstatSync(fd, { bigint: true });
  const named = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return named !== undefined && named.dev === held.dev && named.ino === held.ino;
}
