/**
 * Mapped pages of a region's file, and the ArrayBuffers that look into them. They go with `munmap` when nobody holds them any
 * more: neither who mapped them nor any of those buffers, so that no typed array can ever dangle.
 */

import * as libc from "./libc.ts";
import { Lifetime } from "./lifetime.ts";
import { mapPlaced } from "./placed.ts";
import { unmapAtThreadEnd } from "./thread-end.ts";

/**
 * How a region is mapped. `write`: shared and writable. `private`: read-only to the caller, yet the pages are writable
 * and private, because JavaScript has no read-only typed arrays and a stray write shall stay the writer's own page, not
 * kill the process; never populated, or every page would be copied. `strict`: read-only to the processor as well, so that
 * a stray write is a crash.
 */
export type Access = "write" | "private" | "strict";

const protections = {
  write: [libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED],
  private: [libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_NORESERVE],
  strict: [libc.PROT_READ, libc.MAP_SHARED],
} as const satisfies Record<Access, readonly [number, number]>;

/** Node 20 and Bun abort above 4 GiB. */
export const maxViewBytes = 2 ** 32 - 1;

/** The pages around `[byteOffset, byteOffset + byteSize)` of an open file. Offsets count from the start of the *file*. */
export class Pages {
  readonly lifetime = new Lifetime();
  readonly #start: number;
  readonly #length: number;
  readonly #address: bigint;
  /** The buffers that are out, by their range: one range has one buffer at a time. */
  readonly #buffers = new Map<string, WeakRef<ArrayBuffer>>();

  /** Nobody holds them yet. Not a byte is copied, in a locked address space either. @throws SystemError */
  constructor(fd: number, byteOffset: number, byteSize: number, access: Access) {
    const start = byteOffset - (byteOffset % libc.pageSize());
    // A tensor of no bytes still needs a mapping, since that is what holds its lease.
    const length = Math.max(byteOffset + byteSize - start, 1);
    const address = access === "private" ? mapPrivately(fd, length, start) : mapAs(access, fd, length, start);
    this.#start = start;
    this.#length = length;
    this.#address = address;
    const forget = unmapAtThreadEnd(address, length);
    this.lifetime.whenOver(() => {
      // In this order: the place may be another mapping's as soon as it is free.
      forget();
      libc.munmap(address, length);
    });
  }

  /** All of them. */
  get range(): { readonly address: bigint; readonly length: number } {
    return { address: this.#address, length: this.#length };
  }

  /** Where this range is in memory. */
  addressOf(byteOffset: number, byteSize: number): bigint {
    const offset = byteOffset - this.#start;
    if (offset < 0 || offset + byteSize > this.#length) throw new RangeError("outside the mapping");
    return this.#address + BigInt(offset);
  }

  /** A buffer over exactly this range, of at most `maxViewBytes`; it holds the pages. */
  buffer(byteOffset: number, byteSize: number): ArrayBuffer {
    const address = this.addressOf(byteOffset, byteSize);
    if (byteSize === 0) return new ArrayBuffer(0);
    const range = `${byteOffset}+${byteSize}`;
    const known = this.#buffers.get(range)?.deref();
    if (known !== undefined) return known;
    const buffer = pinned(libc.viewAt(address, byteSize));
    this.#buffers.set(range, new WeakRef(buffer));
    this.lifetime.hold(buffer, () => {
      // A younger buffer may stand there by now.
      if (this.#buffers.get(range)?.deref() === undefined) this.#buffers.delete(range);
    });
    return buffer;
  }

  /**
   * Maps another open description of the same file over them, in place: every address stays valid, and the old
   * description goes, with the locks that it held. @throws SystemError, and changes nothing then
   */
  remap(fd: number, access: Access): void {
    if (access !== "private" || !libc.locksNewMaps()) {
      mapAs(access, fd, this.#length, this.#start, this.#address);
      return;
    }
    // Made elsewhere: others may look at these pages meanwhile, which are never to be seen half done.
    const fresh = mapPrivately(fd, this.#length, this.#start);
    try {
      libc.move(fresh, this.#length, this.#address);
    } catch (error) {
      libc.munmap(fresh, this.#length);
      throw error;
    }
  }
}

function mapAs(access: Access, fd: number, length: number, start: number, over?: bigint): bigint {
  const [protection, flags] = protections[access];
  if (over === undefined) return mapPlaced(length, protection, flags, fd, start);
  return libc.mmap(over, length, protection, flags | libc.MAP_FIXED, fd, start);
}

/**
 * As `private`. In a locked address space (`mlockall(MCL_FUTURE)`) the kernel copies what is mapped privately and writable
 * before mmap returns: so it is writable last, when each page is locked only once it is there (docs/memory.md).
 */
function mapPrivately(fd: number, length: number, start: number): bigint {
  const address = mapPlaced(length, libc.PROT_READ, protections.private[1], fd, start);
  try {
    if (libc.isLocked(address, length)) libc.lockOnFault(address, length);
    libc.mprotect(address, length, protections.private[0]);
    return address;
  } catch (error) {
    libc.munmap(address, length);
    throw error;
  }
}

/**
 * A buffer whose bytes cannot be moved to another one: that one would outlive the pages. Both runtimes refuse to transfer
 * memory from outside in `structuredClone` and `postMessage`; the methods they do not guard are shadowed here.
 */
function pinned(buffer: ArrayBuffer): ArrayBuffer {
  const refuse = () => {
    throw new TypeError("Cannot transfer a region's memory: it stays where it is mapped; copy it with slice()");
  };
  return Object.defineProperties(buffer, { transfer: { value: refuse }, transferToFixedLength: { value: refuse } });
}
