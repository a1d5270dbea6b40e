/**
 * A worker of an elastic pool in the test's own process: it follows the pool's events, has descriptors in place of mappings, and lets go when it is told
 * to. What it has is checked at every step: a page's bytes are the page's own.
 */

import { closeSync, readSync, writeSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import type { ElasticPool, PageRange, PoolWorker, Run } from "../../src/memory/state/elastic.ts";
import type { Store } from "../../src/memory/state/store.ts";

interface Place {
  readonly byte_offset: number;
  readonly byte_size: number;
  readonly first_page: number;
}

interface Told {
  readonly type: string;
  readonly data: {
    readonly pool: string;
    readonly runs?: readonly Place[];
    readonly moves?: readonly {
      from_byte_offset: number;
      to_byte_offset: number;
      byte_size: number;
      first_page: number;
    }[];
  };
}

export class TrialWorker {
  /** Where it has each page of the pool, by offset. */
  readonly places = new Map<number, number>();
  /** Descriptors in place of mappings, by page. */
  readonly held = new Map<number, number>();
  readonly agreesToMoves: boolean;
  readonly #pageSize: number;
  readonly #poolId: string;
  #store: Store;
  #worker: PoolWorker | undefined;
  #slotFd: number | undefined;
  #followed = 0;
  /** What left and is unmapped already, to be told. */
  #left: number[] = [];

  constructor(store: Store, pool: ElasticPool, agreesToMoves = true) {
    this.#store = store;
    this.#pageSize = pool.pageSize;
    this.#poolId = `vmm_${pool.token}`;
    this.agreesToMoves = agreesToMoves;
    this.#attach(pool, undefined);
  }

  get isConnected(): boolean {
    return this.#worker !== undefined;
  }

  get slot(): number | undefined {
    return this.#worker?.slot;
  }

  #connections = 0;
  /** What it waits for an answer of. */
  #busy: Promise<unknown> = Promise.resolve();

  #attach(pool: ElasticPool, slot: number | undefined): void {
    this.#connections += 1;
    const taken = [...this.held.keys()].map((page): PageRange => [page, 1]);
    const asked = { slot, taken, agreesToMoves: this.agreesToMoves, session: null, client: "trial" };
    const attached = this.#store.elastic.attachWorker(pool, asked);
    this.#worker = attached.worker;
    if (attached.slotFd !== undefined) this.#slotFd = attached.slotFd;
    this.#followed = attached.sequence;
    this.#converge(attached.runs);
  }

  /** What it has of pages that are not there goes. */
  #converge(runs: readonly Run[]): void {
    this.places.clear();
    for (const run of runs) this.#place(run.byteOffset, run.byteSize, run.firstPage);
    const pages = new Set(this.places.values());
    for (const page of [...this.held.keys()]) if (!pages.has(page)) this.#unmap(page);
  }

  #place(byteOffset: number, byteSize: number, firstPage: number): void {
    for (let each = 0; each < byteSize / this.#pageSize; each++) {
      this.places.set(byteOffset + each * this.#pageSize, firstPage + each);
    }
  }

  #unmap(page: number): void {
    const fd = this.held.get(page);
    if (fd === undefined) return;
    closeSync(fd);
    this.held.delete(page);
    this.#left.push(page);
  }

  /** Reads the events since the last, and does what they say: unmaps at once, and tells of it later. */
  follow(): void {
    const { events } = this.#store;
    if (this.#followed < events.floor) {
      if (this.#worker === undefined) return;
      const { runs, sequence } = this.#store.elastic.refresh(this.#worker);
      this.#converge(runs);
      this.#followed = sequence;
      return;
    }
    for (let sequence = this.#followed + 1; sequence <= events.last; sequence++) {
      const { type, data } = JSON.parse(events.at(sequence).text) as Told;
      if (type.startsWith("tensord.vmm.") && data.pool === this.#poolId) this.#obey(type, data);
    }
    this.#followed = events.last;
  }

  #obey(type: string, { runs = [], moves = [] }: Told["data"]): void {
    if (type === "tensord.vmm.mapped") {
      for (const run of runs) this.#place(run.byte_offset, run.byte_size, run.first_page);
      return;
    }
    for (const run of runs) {
      for (let each = 0; each < run.byte_size / this.#pageSize; each++) {
        this.places.delete(run.byte_offset + each * this.#pageSize);
        this.#unmap(run.first_page + each);
      }
    }
    for (const move of moves) {
      for (let at = 0; at < move.byte_size; at += this.#pageSize) this.places.delete(move.from_byte_offset + at);
    }
    for (const move of moves) this.#place(move.to_byte_offset, move.byte_size, move.first_page);
  }

  /** Takes up to `most` of the pages that it has not. What a page says of itself must be true. @returns pages that were gone. */
  take(most = Number.POSITIVE_INFINITY): Promise<number> {
    const taking = this.#take(most);
    this.#busy = Promise.allSettled([this.#busy, taking]);
    return taking;
  }

  async #take(most: number): Promise<number> {
    const connection = this.#connections;
    // First: what stays after all is taken anew, and is not to be let go of after that.
    this.letGo();
    if (this.#worker === undefined) return 0;
    const wanted = [...this.places.values()].filter((page) => !this.held.has(page));
    const asked = wanted.slice(0, Math.min(most, limits.brokerDescriptors)).map((page): PageRange => [page, 1]);
    const { pages, gone, descriptors } = await this.#store.elastic.take(this.#worker, asked);
    if (this.#worker === undefined || this.#connections !== connection) {
      // An answer that comes over a connection which has ended reaches nobody.
      for (const fd of descriptors) closeSync(fd);
      return 0;
    }
    for (const [at, page] of pages.entries()) {
      const fd = descriptors[at];
      if (fd === undefined) throw new Error("a page came without its descriptor");
      // Another answer may have brought it meanwhile.
      if (this.held.has(page)) closeSync(fd);
      else this.held.set(page, fd);
    }
    // What has left meanwhile is not mapped any more.
    const there = new Set(this.places.values());
    for (const page of pages) if (!there.has(page)) this.#unmap(page);
    this.check();
    return gone.length;
  }

  /** Each page holds its own number, which whoever had it first has written. */
  check(): void {
    for (const [page, fd] of this.held) {
      const bytes = Buffer.alloc(8);
      readSync(fd, bytes, 0, 8, 0);
      const there = Number(bytes.readBigUInt64LE());
      if (there === 0) {
        bytes.writeBigUInt64LE(BigInt(page));
        writeSync(fd, bytes, 0, 8, 0);
      } else if (there !== page) throw new Error(`page ${page} holds what is page ${there}'s`);
    }
  }

  /** Tells what it has unmapped. */
  letGo(): void {
    if (this.#worker === undefined) return;
    const left = this.#left.map((page): PageRange => [page, 1]);
    this.#left = [];
    this.#store.elastic.letGo(this.#worker, left, this.#followed);
  }

  /** Its connection ends; it lives on, with all that it has mapped. */
  disconnect(): void {
    if (this.#worker !== undefined) this.#store.elastic.disconnected(this.#worker);
    this.#lastSlot = this.#worker?.slot ?? this.#lastSlot;
    this.#worker = undefined;
  }

  #lastSlot: number | undefined;

  /** Comes back, to another server too, with what it has. */
  async reconnect(store: Store, pool: ElasticPool): Promise<void> {
    await this.#busy;
    // Somebody else had it come back, or end, meanwhile.
    if (this.isConnected || this.#isOver) return;
    this.#store = store;
    this.#left = [];
    this.#attach(pool, this.#lastSlot);
  }

  /** As SIGKILL does: its connection ends, and every descriptor goes, in whatever order. */
  async die(): Promise<void> {
    this.#isOver = true;
    this.disconnect();
    // What is on its way to it ends with it, too.
    await this.#busy;
    this.#close();
  }

  async leave(): Promise<void> {
    this.#isOver = true;
    await this.#busy;
    for (const fd of this.held.values()) closeSync(fd);
    this.held.clear();
    if (this.#worker !== undefined) this.#store.elastic.leave(this.#worker);
    this.#worker = undefined;
    this.#close();
  }

  #isOver = false;

  #close(): void {
    for (const fd of this.held.values()) closeSync(fd);
    this.held.clear();
    if (this.#slotFd !== undefined) closeSync(this.#slotFd);
    this.#slotFd = undefined;
  }
}
