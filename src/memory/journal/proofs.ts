/**
 * The proofs of all regions: one file beside the journal's folder, dense, a slot a region. Who is not this server's uid can
 * neither read nor write it, which is why it needs no key; what is damaged or was not written by us proves nothing.
 */

import { closeSync, constants, fchmodSync, fstatSync, ftruncateSync, readSync, rmSync, writeSync } from "node:fs";
import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { openFile } from "../os/files.ts";
import { type Proof, ProofSlot, type ProofStamp, type Provable, proofBytes, readProof, readStamp } from "./proof.ts";

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants;
const mode = 0o600;
/** What an open says of something that is none of our files. Any other error says nothing of the file. */
const foreignErrors = new Set(["EACCES", "EISDIR", "ELOOP", "ENXIO"]);

export class Proofs implements Disposable {
  readonly #path: string;
  #fd: number | undefined;
  /** Each region's slot, by token. */
  readonly #slots = new Map<string, number>();
  #count = 0;
  /** A proof that was read, and one that is written. */
  readonly #slot = Buffer.alloc(proofBytes);
  readonly #written = new ProofSlot();
  /** What the opening found, by slot, until `settle`: which of a region's states its proof tells. */
  #found: (ProofStamp | undefined)[] | undefined = [];
  /** Why what lay there before is not believed; undefined if it is. */
  readonly distrust: string | undefined;
  /** Frees pages that are nobody's yet, for a write that finds the file system full; false if there are none. */
  makeRoom: () => boolean = () => false;

  /** Opens the file at `path`, or makes it; without room for it, the first proof tries again. */
  constructor(path: string) {
    this.#path = path;
    this.distrust = this.#findDistrust();
    if (this.distrust !== undefined) rmSync(path, { recursive: true });
    try {
      this.#readAll(this.#open());
    } catch (error) {
      if (!isFull(error)) throw error;
    }
  }

  /** What others may have written proves nothing; that they could only read it is mended. */
  #findDistrust(): string | undefined {
    let fd: number;
    try {
      fd = openFile(this.#path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      const { code = "unknown" } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") return undefined;
      if (foreignErrors.has(code)) return `it cannot be opened (${code})`;
      throw error;
    }
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) return "it is no file";
      if (stat.uid !== process.geteuid?.()) return `it belongs to uid ${stat.uid}`;
      if ((stat.mode & 0o022) !== 0) return `others could write it (mode ${(stat.mode & 0o777).toString(8)})`;
      if ((stat.mode & 0o777) !== mode) fchmodSync(fd, mode);
      return undefined;
    } finally {
      closeSync(fd);
    }
  }

  #open(): number {
    this.#fd ??= openFile(this.#path, O_RDWR | O_CREAT | O_NOFOLLOW, mode);
    return this.#fd;
  }

  #readAll(fd: number): void {
    const holes: number[] = [];
    const piece = Buffer.alloc(limits.proofsReadBytes);
    for (let got = 0; ; ) {
      got = readSync(fd, piece, 0, piece.length, this.#count * proofBytes);
      for (let byte = 0; byte + proofBytes <= got; byte += proofBytes) {
        this.#enter(piece.subarray(byte, byte + proofBytes), holes);
      }
      if (got < piece.length) break;
    }
    for (const hole of holes.reverse()) this.#moveLastTo(fd, hole);
    ftruncateSync(fd, this.#count * proofBytes);
  }

  /** A crash may have left a region's proof in two slots; they are the same. */
  #enter(slot: Buffer, holes: number[]): void {
    const stamp = readStamp(slot);
    if (stamp === undefined || this.#slots.has(stamp.token)) holes.push(this.#count);
    else {
      this.#slots.set(stamp.token, this.#count);
      this.#tell(this.#count, stamp);
    }
    this.#count += 1;
  }

  /** The last slot's proof takes the place of one that is none, and the file is one slot shorter. */
  #moveLastTo(fd: number, hole: number): void {
    this.#count -= 1;
    if (hole === this.#count) return;
    const got = readSync(fd, this.#slot, 0, proofBytes, this.#count * proofBytes);
    const last = readStamp(this.#slot.subarray(0, got));
    if (last !== undefined && this.#slots.get(last.token) === this.#count) this.#slots.set(last.token, hole);
    else {
      // Somebody else wrote into the file while it was open: the hole holds nothing, and who had the last slot has none.
      this.#slot.fill(0);
      for (const [token, slot] of this.#slots) if (slot === this.#count) this.#slots.delete(token);
    }
    this.#tell(hole, this.#found?.[this.#count]);
    writeSync(fd, this.#slot, 0, proofBytes, hole * proofBytes);
  }

  /** What proves the region's name and owner, or undefined. */
  find(token: string): Proof | undefined {
    const slot = this.#slots.get(token);
    if (slot === undefined) return;
    const got = readSync(this.#open(), this.#slot, 0, proofBytes, slot * proofBytes);
    const proof = readProof(this.#slot.subarray(0, got));
    return proof?.token === token ? proof : undefined;
  }

  /** At the start: whether the region's proof tells a later state than `record`, whose change the journal has lost. */
  isNewer({ token, key, revision }: ProofStamp): boolean {
    const found = this.#findStamp(token);
    return found?.key === key && found.revision > revision;
  }

  #findStamp(token: string): ProofStamp | undefined {
    const slot = this.#slots.get(token);
    return slot === undefined ? undefined : this.#found?.[slot];
  }

  #tell(slot: number, stamp: ProofStamp | undefined): void {
    if (this.#found !== undefined) this.#found[slot] = stamp;
  }

  /** Proves `record` as it is. @throws TensordError `out-of-shared-memory` or `out-of-inodes` if there is no room for it. */
  put(record: Provable): void {
    const { token } = record;
    const slot = this.#slots.get(token) ?? this.#count;
    this.#written.write(record);
    for (let isWritten = false; !isWritten; ) {
      try {
        writeSync(this.#open(), this.#written.bytes, 0, proofBytes, slot * proofBytes);
        isWritten = true;
      } catch (error) {
        if (!isFull(error)) throw error;
        if (this.#fd === undefined || !this.makeRoom()) throw noRoom(this.#fd === undefined, error);
      }
    }
    this.#tell(slot, undefined);
    this.#slots.set(token, slot);
    this.#count = Math.max(this.#count, slot + 1);
  }

  /** Nothing proves the region any more. Takes no memory: it works on a full file system. */
  remove(token: string): void {
    const slot = this.#slots.get(token);
    if (slot === undefined) return;
    const fd = this.#open();
    this.#slots.delete(token);
    this.#moveLastTo(fd, slot);
    ftruncateSync(fd, this.#count * proofBytes);
  }

  /**
   * At the end of a start: every region that stands has the proof of its row, and what is not kept has none.
   * @returns how many could not be given one, and why.
   */
  settle(
    standing: Iterable<Provable>,
    isKept: (token: string) => boolean,
  ): { readonly missing: number; readonly cause?: unknown } {
    const failures: unknown[] = [];
    for (const record of standing) {
      const stamp = this.#findStamp(record.token);
      if (stamp?.key === record.key && stamp.revision === record.revision) continue;
      try {
        this.put(record);
      } catch (error) {
        if (!(error instanceof TensordError)) throw error;
        failures.push(error);
      }
    }
    for (const token of [...this.#slots.keys()]) if (!isKept(token)) this.remove(token);
    this.#found = undefined;
    return { missing: failures.length, ...(failures.length > 0 && { cause: failures[0] }) };
  }

  /** What the file occupies (stat(2): blocks of 512 bytes). */
  byteSize(): number {
    return this.#fd === undefined ? 0 : fstatSync(this.#fd).blocks * 512;
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOSPC";
}

function noRoom(isWithoutFile: boolean, cause: unknown): TensordError {
  const what = isWithoutFile ? "inode" : "page";
  return new TensordError(
    isWithoutFile ? "out-of-inodes" : "out-of-shared-memory",
    `Cannot write what proves the region's name: the shared memory file system has no free ${what}`,
    { errno: "ENOSPC", hint: "Remove foreign files from it, delete regions, or mount it larger." },
    { cause },
  );
}
