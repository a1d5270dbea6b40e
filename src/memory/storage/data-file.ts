/**
 * A region's file held open while its bytes pass through the server. It holds the locks that any worker's mapping would,
 * so that leases and writers are one thing, whoever has them.
 */

import { closeSync, constants, fstatSync, readSync, writeSync } from "node:fs";
import { openFile } from "../os/files.ts";
import { leaseByte, writerByte } from "../os/kernel-lease.ts";
import { tryReadLock } from "../os/libc.ts";
import { Inflow } from "./inflow.ts";

export type DataAccess = "read" | "write";

const { O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

/** A body on its way into a file. What still comes of it once this is disposed of is written nowhere. */
export interface Receipt extends Disposable {
  /** Resolves when all of the body is written. @throws what a write failed with, or the body when it breaks off. */
  readonly ended: Promise<void>;
  /** How many bytes have been written. */
  readonly byteSize: number;
}

export class DataFile implements Disposable {
  readonly fd: number;
  readonly #translate: (error: unknown) => unknown;
  /** How many descriptors of the file this process has while nobody else reads or writes it, this one counted. */
  readonly ownDescriptors: number;

  /**
   * Takes `fd` over, of an open file description of its own; closes it if the locks cannot be taken.
   * @param access null: none are, since locks say nothing of this file.
   */
  constructor(fd: number, access: DataAccess | null, translate: (error: unknown) => unknown, ownDescriptors = 1) {
    if (access !== null) lock(fd, access);
    this.fd = fd;
    this.#translate = translate;
    this.ownDescriptors = ownDescriptors;
  }

  /** @param translate makes a failure of the table of what the system says later. */
  static open(path: string, access: DataAccess, translate: (error: unknown) => unknown): DataFile {
    const fd = openFile(path, O_NOFOLLOW | (access === "write" ? O_RDWR : O_RDONLY), undefined, "long");
    return new DataFile(fd, access, translate);
  }

  /** Opens the same file again, whatever became of its names. */
  get path(): string {
    return `/proc/self/fd/${this.fd}`;
  }

  get byteSize(): number {
    return fstatSync(this.fd).size;
  }

  /** Whether the kernel sends the file to a socket by itself. */
  get isSendable(): boolean {
    return true;
  }

  /** What the file's pages take. stat(2): `st_blocks` counts 512 bytes each. */
  get allocatedBytes(): number {
    return fstatSync(this.fd).blocks * 512;
  }

  /** Tells one file from another: device and inode. */
  get identity(): string {
    return toFileIdentity(this.fd);
  }

  /** Reads `byteSize` bytes at `byteOffset`, in this turn of the event loop; fewer if the file ends before. */
  read(byteOffset: number, byteSize: number): Uint8Array {
    const bytes = Buffer.allocUnsafe(byteSize);
    let done = 0;
    try {
      for (let count = -1; done < byteSize && count !== 0; done += count) {
        count = readSync(this.fd, bytes, done, byteSize - done, byteOffset + done);
      }
    } catch (error) {
      throw this.#translate(error);
    }
    return bytes.subarray(0, done);
  }

  /** Writes all of `bytes` at `byteOffset`, in this turn of the event loop: a socket brings 64 KiB at a time. */
  write(bytes: Uint8Array, byteOffset: number): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.fd, bytes, done, bytes.length - done, byteOffset + done);
      }
    } catch (error) {
      throw this.#translate(error);
    }
  }

  /**
   * Lets the runtime write `body` at `byteOffset`, all of it: no byte becomes an object of JavaScript, whose collection
   * others would wait for. It goes on until the body ends or the inflow is disposed. `bench/data-plane.ts`.
   */
  receive(body: ReadableStream<Uint8Array>, byteOffset: number): Receipt {
    return this.translated(() => new Inflow(this.path, body, byteOffset, this.#translate));
  }

  /** Runs `call`, and makes a failure of the table of what the system says. */
  protected translated<Result>(call: () => Result): Result {
    try {
      return call();
    } catch (error) {
      throw this.#translate(error);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

function lock(fd: number, access: DataAccess): void {
  try {
    // The server only ever asks at these bytes and takes no write lock there, so neither of them can be refused.
    tryReadLock(fd, leaseByte, 1n);
    if (access === "write") tryReadLock(fd, writerByte, 1n);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

export function toFileIdentity(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}
