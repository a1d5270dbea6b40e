/** Names in their order, for pages that continue behind the last one: O(log n) to find a place. */

export class SortedNames {
  readonly #names: string[] = [];

  add(name: string): void {
    const at = this.#seek(name);
    if (this.#names[at] !== name) this.#names.splice(at, 0, name);
  }

  delete(name: string): void {
    const at = this.#seek(name);
    if (this.#names[at] === name) this.#names.splice(at, 1);
  }

  /** At most `count` names behind `name`. */
  after(name: string, count: number): readonly string[] {
    const at = this.#seek(name);
    const first = this.#names[at] === name ? at + 1 : at;
    return this.#names.slice(first, first + count);
  }

  /** Where the first name stands that is not before `name`. */
  #seek(name: string): number {
    let low = 0;
    for (let high = this.#names.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if ((this.#names[middle] ?? "") < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
