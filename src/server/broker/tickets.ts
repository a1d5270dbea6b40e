/**
 * What the broker's Worker has to know of a region to hand it out by itself, without a turn of the event loop: a ticket, which is void
 * from the moment in which the region changes. Both sides see that in memory that they share, so the order holds that counts: the
 * Worker leases and then looks whether its ticket is good, and whoever frees a region voids the ticket and then asks for leases.
 */

import { idOf } from "../../memory/journal/region-record.ts";
import { limits } from "../../memory/limits.ts";
import type { Region } from "../../memory/state/region.ts";
import type { Store } from "../../memory/state/store.ts";
import { toRegionFacts } from "../../routes/to-wire.ts";

export interface Ticket {
  readonly region: string;
  /** Good for as long as there is this number in this place of what both sides see. */
  readonly place: number;
  readonly number: number;
  readonly path: string;
  readonly isWritable: boolean;
  /** The descriptor, as JSON. */
  readonly text: string;
}

/** The event loop's side. */
export class TicketOffice implements Disposable {
  readonly #store: Store;
  readonly #numbers: Int32Array;
  /** In the order of their issue: the first are the next to be void. */
  readonly #places = new Map<Region, number>();
  readonly #free: number[];

  /** @param memory an `Int32Array` of as many as may be good at once. */
  constructor(store: Store, memory: SharedArrayBuffer) {
    this.#store = store;
    this.#numbers = new Int32Array(memory);
    this.#free = [...this.#numbers.keys()];
    store.books.changeListeners.add(this.#void);
    store.stopping.addEventListener("abort", this.#voidAll);
  }

  /** @returns undefined if the region has one, or shall have none. */
  issue(region: Region): Ticket | undefined {
    if (this.#places.has(region) || this.#store.stopping.aborted) return undefined;
    const { state } = region;
    if (state !== "open" && state !== "sealed") return undefined;
    const text = JSON.stringify(toRegionFacts(this.#store, region));
    if (text.length > limits.brokerTicketBytes) return undefined;
    const [oldest] = this.#places.keys();
    if (this.#free.length === 0 && oldest !== undefined) this.#void(oldest);
    const place = this.#free.pop() ?? 0;
    this.#places.set(region, place);
    const path = this.#store.storages.of(region).memory.descriptionPath(region.token);
    const number = Atomics.load(this.#numbers, place);
    return { region: idOf(region), place, number, path, isWritable: state === "open", text };
  }

  voidAll(): void {
    for (const region of [...this.#places.keys()]) this.#void(region);
  }

  readonly #voidAll = () => this.voidAll();

  readonly #void = (region: Region) => {
    const place = this.#places.get(region);
    if (place === undefined) return;
    Atomics.add(this.#numbers, place, 1);
    this.#places.delete(region);
    this.#free.push(place);
  };

  /** No ticket is good from here on. */
  [Symbol.dispose](): void {
    this.#store.books.changeListeners.delete(this.#void);
    this.#store.stopping.removeEventListener("abort", this.#voidAll);
    this.voidAll();
  }
}
