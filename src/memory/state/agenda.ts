/**
 * One timer for many due times: calls back for each item when its time has come, in slices so that the event loop stays
 * free. Scheduling an item again moves it.
 */

import TinyQueue from "tinyqueue";

interface Entry<Item> {
  readonly dueAt: number;
  readonly item: Item;
}

/** setTimeout's longest delay; later items are looked at again then. */
const longestDelayMs = 2 ** 31 - 1;

export class Agenda<Item> implements Disposable {
  #heap = toHeap<Item>([]);
  /** The entry that counts for an item; older ones in the heap are dropped as they come up. */
  readonly #current = new Map<Item, Entry<Item>>();
  readonly #onDue: (item: Item) => void;
  readonly #slice: number;
  #timer: Timer | undefined;
  #timerAt = Number.POSITIVE_INFINITY;

  constructor(slice: number, onDue: (item: Item) => void) {
    this.#slice = slice;
    this.#onDue = onDue;
  }

  get size(): number {
    return this.#current.size;
  }

  /** Every item that is scheduled, the one that has waited for longest without a change first. */
  get items(): Iterable<Item> {
    return this.#current.keys();
  }

  /** Calls back for `item` at `dueAt`, in ms since the epoch, instead of whenever it was scheduled before. */
  schedule(item: Item, dueAt: number): void {
    const entry = { dueAt, item };
    this.#current.set(item, entry);
    this.#heap.push(entry);
    if (this.#heap.length > 2 * this.#current.size + 64) this.#heap = toHeap([...this.#current.values()]);
    this.#arm();
  }

  cancel(item: Item): void {
    this.#current.delete(item);
  }

  #arm(): void {
    const next = this.#heap.peek();
    if (next === undefined || next.dueAt >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = next.dueAt;
    const delay = Math.min(Math.max(0, next.dueAt - Date.now()), longestDelayMs);
    this.#timer = setTimeout(() => this.#run(), delay);
  }

  #run(): void {
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = Date.now();
    for (let done = 0; done < this.#slice; done++) {
      const next = this.#heap.peek();
      if (next === undefined || next.dueAt > now) break;
      this.#heap.pop();
      if (this.#current.get(next.item) !== next) continue;
      this.#current.delete(next.item);
      this.#onDue(next.item);
    }
    this.#arm();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timerAt = Number.NEGATIVE_INFINITY;
  }
}

function toHeap<Item>(entries: Entry<Item>[]): TinyQueue<Entry<Item>> {
  return new TinyQueue(entries, (a, b) => a.dueAt - b.dueAt);
}
