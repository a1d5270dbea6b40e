/**
 * Items by an ascending integer key, for pages that continue where the last one ended: O(1) to append and remove,
 * O(log n) to find a place. Removed items leave a hole until half of the index is holes.
 */

import assert from "node:assert/strict";

export class OrderedIndex<Item extends { readonly key: number }> {
  #items: (Item | number)[] = [];
  #holes = 0;

  get size(): number {
    return this.#items.length - this.#holes;
  }

  /** Appends `item`, whose key must be above every key before it. */
  append(item: Item): void {
    const last = this.#items.at(-1);
    assert(last === undefined || keyOf(last) < item.key, "keys must ascend");
    this.#items.push(item);
  }

  remove(item: Item): void {
    const at = this.#seek(item.key);
    if (this.#items[at] !== item) return;
    this.#items[at] = item.key;
    this.#holes += 1;
    if (this.#holes > 32 && this.#holes * 2 > this.#items.length) this.#compact();
  }

  /** Items whose key is above `key`, in order. Do not append or remove while it runs. */
  *after(key: number): Generator<Item> {
    for (let at = this.#seek(key + 1); at < this.#items.length; at++) {
      const item = this.#items[at];
      if (typeof item === "object") yield item;
    }
  }

  #seek(key: number): number {
    let low = 0;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const item = this.#items[middle];
      if (item !== undefined && keyOf(item) < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #compact(): void {
    this.#items = this.#items.filter((item) => typeof item === "object");
    this.#holes = 0;
  }
}

function keyOf(item: { readonly key: number } | number): number {
  return typeof item === "number" ? item : item.key;
}
