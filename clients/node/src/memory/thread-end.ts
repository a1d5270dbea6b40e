/**
 * What is to be given back when a worker thread ends: `terminate()` and the end of a pool run no JavaScript, and no
 * finalizer either, while mappings belong to the whole process. So the thread's own end does it: a key of POSIX threads has
 * a destructor, which the C library calls on the thread after its JavaScript is gone (docs/adr/0014-end-of-a-thread.md).
 */

import { isMainThread } from "node:worker_threads";
import * as libc from "./libc.ts";

/**
 * The destructor, `void (*)(uint64_t *table)`: calls each entry's function with its two arguments, the last entry first,
 * and ends with a jump to the first entry's, which unmaps this very code. No function of the C library can do that.
 * `table[0]` is the entries' size in bytes; an entry is function, argument, argument.
 */
const destructors: Readonly<Record<string, string>> = {
  // push rbx; push r12; sub rsp, 8; mov rbx, rdi; mov r12, [rdi]
  // again: sub r12, 24; jle last
  //        mov rdi, [rbx+r12+16]; mov rsi, [rbx+r12+24]; call [rbx+r12+8]; jmp again
  // last:  mov rdi, [rbx+16]; mov rsi, [rbx+24]; mov rax, [rbx+8]; add rsp, 8; pop r12; pop rbx; jmp rax
  x64:
    "53 4154 4883ec08 4889fb 4c8b27 4983ec18 7e11 4a8b7c2310 4a8b742318 42ff542308 ebe9 " +
    "488b7b10 488b7318 488b4308 4883c408 415c 5b ffe0",
  // stp x29, x30, [sp, #-32]!; stp x19, x20, [sp, #16]; mov x19, x0; ldr x20, [x0]
  // again: subs x20, x20, #24; b.le last
  //        add x9, x19, x20; ldp x16, x0, [x9, #8]; ldr x1, [x9, #24]; blr x16; b again
  // last:  ldp x16, x0, [x19, #8]; ldr x1, [x19, #24]; ldp x19, x20, [sp, #16]; ldp x29, x30, [sp], #32; br x16
  arm64:
    "fd7bbea9 f35301a9 f30300aa 140040f9 946200f1 cd000054 6902148b 308140a9 210d40f9 00023fd6 faffff17 " +
    "708240a9 610e40f9 f35341a9 fd7bc2a8 00021fd6",
};

const entryWords = 3;
/** More than a process may map (vm.max_map_count). They cost address space, and memory only once they were used. */
const maxEntries = 65_536;

/** The calls of one thread, in memory that its end finds. */
class ThreadEnd {
  readonly #table: BigUint64Array;
  readonly #munmap = libc.addressOf("munmap");
  readonly #close = libc.addressOf("close");
  /** Does nothing: an entry that is over is a call of it. */
  readonly #idle = libc.addressOf("getpagesize");
  readonly #free: number[] = [];
  #count = 0;

  /** @throws SystemError */
  constructor(code: Buffer) {
    const page = libc.pageSize();
    const tableBytes = 8 * (1 + entryWords * maxEntries);
    const length = page + Math.ceil(tableBytes / page) * page;
    const flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE;
    const start = libc.mmap(0n, length, libc.PROT_READ | libc.PROT_WRITE, flags, -1, 0);
    try {
      new Uint8Array(libc.viewAt(start, page)).set(code);
      libc.mprotect(start, page, libc.PROT_READ | libc.PROT_EXEC);
      this.#table = new BigUint64Array(libc.viewAt(start + BigInt(page), tableBytes));
      const key = libc.createThreadKey(start);
      this.#write(this.#munmap, start, BigInt(length));
      this.#write(libc.addressOf("pthread_key_delete"), BigInt(key), 0n);
      libc.setThreadValue(key, start + BigInt(page));
    } catch (error) {
      libc.munmap(start, length);
      throw error;
    }
  }

  unmap(address: bigint, length: number): () => void {
    return this.#promise(this.#munmap, address, BigInt(length));
  }

  close(fd: number): () => void {
    return this.#promise(this.#close, BigInt(fd), 0n);
  }

  #promise(call: bigint, first: bigint, second: bigint): () => void {
    const index = this.#write(call, first, second);
    return () => {
      if (index === undefined) return;
      // One store: a thread that is terminated in the middle has either entry.
      this.#table[1 + entryWords * index] = this.#idle;
      this.#free.push(index);
    };
  }

  #write(call: bigint, first: bigint, second: bigint): number | undefined {
    const index = this.#free.pop() ?? this.#count;
    if (index === maxEntries) return undefined;
    const at = 1 + entryWords * index;
    this.#table[at + 1] = first;
    this.#table[at + 2] = second;
    this.#table[at] = call;
    if (index === this.#count) this.#table[0] = BigInt(8 * entryWords * ++this.#count);
    return index;
  }
}

/** Undefined before the first use; null where there is none. */
let threadEnd: ThreadEnd | null | undefined;

function begin(): ThreadEnd | null {
  const code = destructors[process.arch];
  // The main thread ends with the process, and its mappings with that.
  if (isMainThread || code === undefined) return null;
  try {
    return new ThreadEnd(Buffer.from(code.replaceAll(" ", ""), "hex"));
  } catch (error) {
    if (error instanceof libc.SystemError) return null;
    throw error;
  }
}

/** Has the end of this thread unmap these pages, unless what is returned was called before. */
export function unmapAtThreadEnd(address: bigint, length: number): () => void {
  return here()?.unmap(address, length) ?? nothing;
}

/**
 * Has the end of this thread close a descriptor, unless what is returned was called before. Node closes by itself what a
 * thread opened through it, and before this: the number may be another file's by then.
 */
export function closeAtThreadEnd(fd: number, openedBy: "runtime" | "kernel"): () => void {
  return (closesFiles && openedBy === "runtime" ? undefined : here()?.close(fd)) ?? nothing;
}

const closesFiles = process.versions.bun === undefined && process.versions.deno === undefined;

function nothing(): void {}

function here(): ThreadEnd | null {
  if (threadEnd === undefined) threadEnd = begin();
  return threadEnd;
}
