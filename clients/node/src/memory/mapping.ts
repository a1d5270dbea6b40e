/**
 * A mapping of a region's file, and the ArrayBuffers that look into it. Its pages go with `munmap` when the mapping is
 * closed *and* the last of those buffers was collected, so that no typed array can ever dangle. It opens no files and
 * takes no locks.
 */

import { TensordError } from "../errors.ts";
import * as libc from "./libc.ts";

/**
 * How a region is mapped. `write`: shared and writable. `private`: read-only to the caller, yet the pages are writable
 * and private, because JavaScript has no read-only typed arrays and a stray write shall stay the writer's own page, not
 * kill the process; never populated, or every page would be copied. `strict`: read-only to the processor as well, so that
 * a stray write is a crash.
 */
export type Access = "write" | "private" | "strict";

/** Node 20 and Bun abort above 4 GiB. */
export const maxViewBytes = 2 ** 32 - 1;

const protections = {
  write: [libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED],
  private: [libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_NORESERVE],
  strict: [libc.PROT_READ, libc.MAP_SHARED],
} as const satisfies Record<Access, readonly [number, number]>;

/** What is mapped, apart from the objects that keep it: the mapping itself, and each buffer over it. */
interface Hold {
  readonly address: bigint;
  readonly length: number;
  holders: number;
  /** The buffers that are out, by their range: one range has one buffer at a time. */
  readonly buffers: Map<string, WeakRef<ArrayBuffer>>;
  /** What to call when it is unmapped. */
  readonly endings: (() => void)[];
}

const registry = new FinalizationRegistry<{ readonly hold: Hold; readonly range?: string }>(({ hold, range }) => {
  // A younger buffer may stand there by now.
  if (range !== undefined && hold.buffers.get(range)?.deref() === undefined) hold.buffers.delete(range);
  letGo(hold);
});

function letGo(hold: Hold): void {
  hold.holders -= 1;
  if (hold.holders > 0) return;
  libc.munmap(hold.address, hold.length);
  for (const ended of hold.endings) ended();
}

/**
 * The range `[byteOffset, byteOffset + byteSize)` of an open file, mapped with the pages around it. Offsets of its methods
 * count from the start of the *file*. The descriptor may be closed afterwards: the mapping keeps the open file, and with
 * it the locks.
 */
export class Mapping {
  readonly #start: number;
  #hold: Hold | undefined;
  #access: Access;

  /** @throws SystemError */
  constructor(fd: number, byteOffset: number, byteSize: number, access: Access) {
    this.#start = byteOffset - (byteOffset % libc.pageSize());
    // A tensor of no bytes still needs a mapping, since that is what holds its lease.
    const length = Math.max(byteOffset + byteSize - this.#start, 1);
    const [protection, flags] = protections[access];
    const address = libc.mmap(0n, length, protection, flags, fd, this.#start);
    this.#access = access;
    this.#hold = { address, length, holders: 1, buffers: new Map(), endings: [] };
    registry.register(this, { hold: this.#hold }, this);
  }

  get access(): Access {
    return this.#access;
  }

  get isClosed(): boolean {
    return this.#hold === undefined;
  }

  /** Calls `ended` once the pages are gone. What it refers to must not refer to this mapping, or that never happens. */
  whenUnmapped(ended: () => void): void {
    this.#held().endings.push(ended);
  }

  /** Lets go. Buffers that are out stay valid and keep the pages. */
  close(): void {
    if (this.#hold === undefined) return;
    registry.unregister(this);
    letGo(this.#hold);
    this.#hold = undefined;
  }

  /** Where this range is in memory, for as long as the mapping is not closed. @throws TensordError `closed` */
  addressOf(byteOffset: number, byteSize: number): bigint {
    const { address, length } = this.#held();
    const start = byteOffset - this.#start;
    if (start < 0 || start + byteSize > length) throw new RangeError("outside the mapping");
    return address + BigInt(start);
  }

  /** A buffer over exactly this range, of at most `maxViewBytes`. @throws TensordError `closed` */
  buffer(byteOffset: number, byteSize: number): ArrayBuffer {
    const hold = this.#held();
    const address = this.addressOf(byteOffset, byteSize);
    if (byteSize === 0) return new ArrayBuffer(0);
    const range = `${byteOffset}+${byteSize}`;
    const known = hold.buffers.get(range)?.deref();
    if (known !== undefined) return known;
    const buffer = pinned(libc.viewAt(address, byteSize));
    hold.holders += 1;
    hold.buffers.set(range, new WeakRef(buffer));
    registry.register(buffer, { hold, range });
    return buffer;
  }

  /**
   * Maps another open description of the same file over this one, in place: every address stays valid, and the old
   * description goes, with the locks that it held. @throws SystemError, and changes nothing then
   */
  remap(fd: number, access: Access): void {
    const { address, length } = this.#held();
    const [protection, flags] = protections[access];
    libc.mmap(address, length, protection, flags | libc.MAP_FIXED, fd, this.#start);
    this.#access = access;
  }

  #held(): Hold {
    if (this.#hold === undefined) throw new TensordError("closed", "Cannot use the mapping: it is closed");
    return this.#hold;
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
