/** What a worker does to a region's file, from the test's own process: lease it, write into it, truncate it. */

import { expect } from "bun:test";
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { leaseByte, makerByte, writerByte } from "../../../src/memory/os/kernel-lease.ts";
import { tryReadLock, tryWriteLock } from "../../../src/memory/os/libc.ts";

/** Maps a region as far as the server can tell: the locks of a reader, or of a writer, until disposed. */
export function lease(path: string, access: "read" | "write" = "read"): Disposable {
  const fd = openSync(path, access === "read" ? "r" : "r+");
  expect(tryReadLock(fd, leaseByte, 1n)).toBeTrue();
  if (access === "write") expect(tryReadLock(fd, writerByte, 1n)).toBeTrue();
  return { [Symbol.dispose]: () => closeSync(fd) };
}

/** Maps a region as who made it does, as far as the server can tell, until disposed. */
export function hold(path: string): Disposable {
  const fd = openSync(path, "r");
  expect(tryReadLock(fd, makerByte, 1n)).toBeTrue();
  return { [Symbol.dispose]: () => closeSync(fd) };
}

/** Keeps leases of an open region out, past its seal too, until disposed. */
export function bar(path: string): Disposable {
  const fd = openSync(path, "r+");
  expect(tryWriteLock(fd, leaseByte, 1n)).toBeTrue();
  return { [Symbol.dispose]: () => closeSync(fd) };
}

/**
 * A descriptor to a region's file that nobody knows of: no lock says that it is there. Opened before the seal it can
 * still write after it, which is how bytes are changed behind the server's back without being root.
 */
export class Intruder implements Disposable {
  readonly #fd: number;

  constructor(path: string) {
    this.#fd = openSync(path, "r+");
  }

  write(byteOffset: number, bytes: Uint8Array): void {
    expect(writeSync(this.#fd, bytes, 0, bytes.length, byteOffset)).toBe(bytes.length);
  }

  read(byteOffset: number, byteSize: number): Buffer {
    const bytes = Buffer.alloc(byteSize);
    expect(readSync(this.#fd, bytes, 0, byteSize, byteOffset)).toBe(byteSize);
    return bytes;
  }

  truncate(byteSize: number): void {
    ftruncateSync(this.#fd, byteSize);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
