/**
 * Which file each region of `file` storage points at: a record in the keeper for each, and what is known of the file now. A file is
 * looked at, and opened for reading; nothing is ever written, linked or removed but the record.
 */

import { closeSync, constants, fstatSync, statSync, writeFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { TensordError } from "../../error.ts";
import { quote, tokenPattern, toRegionId } from "../../naming.ts";
import { type Stay, toOutOfDescriptors } from "../../os/descriptors.ts";
import { listDirectory, openFile, readText } from "../../os/files.ts";
import type { DataAccess } from "../data-file.ts";
import type { Files } from "../file-bytes.ts";
import type { InstanceDirectory } from "../instance-directory.ts";
import { ShmFiles, unlinkIfThere } from "../shm/shm-files.ts";
import type { Identity } from "../storage.ts";
import {
  changeWords,
  type FileChange,
  type FileStatus,
  findChange,
  isAllowed,
  type Origin,
  parseRecord,
  toPath,
  toRecord,
} from "./origin.ts";

const { O_CREAT, O_EXCL, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** What a record is called in the keeper, behind the region's token: a server that knows of none leaves it alone. */
const recordSuffix = ".file";
/** One page of the shared directory's file system. */
const recordBytes = 4096;

interface Known {
  /** Undefined of a region that was never entered. */
  readonly origin: Origin | undefined;
  /** What the file was found to be, and what of that was told. */
  seen: FileChange | null;
  told: FileChange | null;
  isLooking: boolean;
}

export class Origins implements Files {
  readonly keptDescriptors = 0;
  readonly roots: readonly string[];
  readonly shm: ShmFiles;
  readonly #directory: InstanceDirectory;
  readonly #known = new Map<string, Known>();
  /** Hears of a region whose file may be another than was told, where that was found out later. */
  onLook: (token: string) => void = () => {};

  /** @param roots the folders whose files may be pointed at. */
  constructor(directory: InstanceDirectory, roots: readonly string[]) {
    this.#directory = directory;
    this.roots = roots;
    this.shm = new ShmFiles(directory, false);
  }

  get tokens(): Iterable<string> {
    return this.#known.keys();
  }

  get recordBytes(): number {
    return this.#known.size * recordBytes;
  }

  newPath(token: string): string {
    return this.#directory.path("new", token + recordSuffix);
  }

  keptPath(token: string): string {
    return this.#directory.path("keep", token + recordSuffix);
  }

  /** An empty record, which points at nothing yet. */
  make(token: string): void {
    this.shm.translated(() => closeSync(openFile(this.newPath(token), O_WRONLY | O_CREAT | O_EXCL, 0o600)));
    this.#enter(token, undefined);
  }

  /** From here on the kept region points at that file. */
  bind(token: string, origin: Origin): void {
    this.shm.translated(() => writeFileSync(this.keptPath(token), toRecord(origin)));
    this.#enter(token, origin);
  }

  #enter(token: string, origin: Origin | undefined): void {
    this.#known.set(token, { origin, seen: null, told: null, isLooking: false });
  }

  /** What an earlier server kept. Files are looked at later, one by one. */
  readKept(): readonly [token: string, origin: Origin | undefined][] {
    const names = this.shm.translated(() => listDirectory(this.#directory.path("keep")));
    const tokens = names
      .filter((name) => name.endsWith(recordSuffix))
      .map((name) => name.slice(0, -recordSuffix.length));
    return tokens
      .filter((token) => tokenPattern.test(token))
      .map((token) => {
        const origin = parseRecord(this.shm.translated(() => readText(this.keptPath(token))));
        if (!this.#known.has(token)) this.#enter(token, origin);
        return [token, origin];
      });
  }

  /** Removes the record, whether it was kept or not. The file is nobody's business here. */
  forget(token: string): void {
    this.shm.translated(() => {
      unlinkIfThere(this.newPath(token));
      unlinkIfThere(this.keptPath(token));
    });
    this.#known.delete(token);
  }

  has(token: string): boolean {
    return this.#known.has(token);
  }

  of(token: string): Origin | undefined {
    return this.#known.get(token)?.origin;
  }

  /** What the file is since it is not what it was, as far as that was told. */
  changeOf(token: string): FileChange | null {
    return this.#known.get(token)?.told ?? null;
  }

  /** What was found out is told from now on. */
  settle(token: string): void {
    const known = this.#known.get(token);
    if (known !== undefined) known.told = known.seen;
  }

  /** Looks at the file, or has it looked at where that may take its time. @returns whether there is something to tell. */
  look(token: string): boolean {
    const known = this.#known.get(token);
    if (known?.origin === undefined) return false;
    const { origin } = known;
    if (!isAllowed(origin.root, this.roots)) known.seen = "not-allowed";
    else if (origin.isRemote) void this.#lookLater(token, known, origin);
    else known.seen = findChange(origin, statusOf(toPath(origin)));
    return known.seen !== known.told;
  }

  async #lookLater(token: string, known: Known, origin: Origin): Promise<void> {
    if (known.isLooking) return;
    known.isLooking = true;
    // One that cannot be looked at cannot be reached either.
    const status = await stat(toPath(origin), { bigint: true }).catch(() => undefined);
    known.isLooking = false;
    known.seen = findChange(origin, status);
    if (known.seen !== known.told && this.#known.get(token) === known) this.onLook(token);
  }

  /** Opens the file for reading. @throws TensordError `io-error` if it is not what it was, `storage-unavailable`. */
  open(token: string, access: DataAccess, stay: Stay = "short"): number {
    const origin = this.#reach(token, access);
    const path = toPath(origin);
    this.#check(token, statusOf(path));
    const fd = this.#openAt(token, path, stay);
    try {
      this.#check(token, fstatSync(fd, { bigint: true }));
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #openAt(token: string, path: string, stay: Stay): number {
    try {
      return openFile(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, undefined, stay);
    } catch (error) {
      throw isUnreachable(error) ? this.#changed(token, "gone") : error;
    }
  }

  #reach(token: string, access: DataAccess): Origin {
    const origin = this.of(token);
    const what = `Cannot ${access === "read" ? "read" : "write to"} the file of ${toRegionId(token)}`;
    if (origin === undefined) throw new TensordError("io-error", `${what}: it has none`, { hint: "Load it again." });
    if (access === "write") {
      const hint = "Load it in mode copy, and write to a region of your own.";
      throw new TensordError("storage-unavailable", `${what}: it is somebody else's (${quote(toPath(origin))})`, {
        hint,
      });
    }
    if (!isAllowed(origin.root, this.roots)) throw this.#changed(token, "not-allowed");
    if (!origin.isRemote) return origin;
    throw new TensordError("storage-unavailable", `${what}: its file system may keep the server waiting`, {
      hint: "Map it, or load it in mode copy.",
    });
  }

  sizeOf(token: string, fd: number): number {
    const status = fstatSync(fd, { bigint: true });
    this.#check(token, status);
    return Number(status.size);
  }

  #check(token: string, status: FileStatus | undefined): void {
    const origin = this.of(token);
    const change = origin === undefined ? "gone" : findChange(origin, status);
    if (change !== null) throw this.#changed(token, change);
  }

  #changed(token: string, change: FileChange): TensordError {
    const origin = this.of(token);
    const path = origin === undefined ? "" : ` ${quote(toPath(origin))}`;
    return new TensordError("io-error", `Cannot use the file${path} of ${toRegionId(token)}: ${changeWords[change]}`, {
      hint: "Load it again: what is there now is another version, beside this one.",
    });
  }

  /** What is said of the shared directory's files is not true of these. */
  translate(error: unknown, requestedBytes: number): unknown {
    const { code, message } = error as NodeJS.ErrnoException;
    const isOwn = error instanceof TensordError || typeof code !== "string" || code === "EOF";
    if (isOwn || toOutOfDescriptors(error) !== undefined) return this.shm.translate(error, requestedBytes);
    return new TensordError(
      "io-error",
      `Cannot read a model file: ${message}`,
      { errno: code, hint: "Look whether the file system that it is on is well." },
      { cause: error },
    );
  }

  identityOf(token: string): Identity {
    const { dev = "0", ino = "0" } = this.of(token) ?? {};
    return { dev, ino };
  }
}

function statusOf(path: string): FileStatus | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch (error) {
    if (isUnreachable(error)) return undefined;
    throw error;
  }
}

/** What stands in the way to it is as good as its absence. */
function isUnreachable(error: unknown): boolean {
  const { code = "" } = error as NodeJS.ErrnoException;
  return ["ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "EIO", "ENODEV", "ENXIO", "ESTALE"].includes(code);
}
