/** What somebody knows who only follows the events: held against the books, it shows that none is missing or too many. */

import { expect } from "bun:test";
import type { Store } from "../../src/memory/state/store.ts";
import type { StoreEvent } from "../../src/memory/state/store-event.ts";

export class EventPicture {
  readonly #store: Store;
  /** By token: the state, as the events tell it. */
  readonly #regions = new Map<string, string>();
  readonly #sessions = new Set<string>();

  constructor(store: Store) {
    this.#store = store;
    store.listen((event) => this.#take(event));
  }

  #take(event: StoreEvent): void {
    switch (event.type) {
      case "tensord.region.allocated":
        expect(this.#regions.has(event.region.token), "it is told once").toBeFalse();
        this.#regions.set(event.region.token, "open");
        break;
      case "tensord.region.sealed":
        expect(this.#regions.get(event.region.token)).toBe("open");
        this.#regions.set(event.region.token, "sealed");
        break;
      case "tensord.region.draining":
        expect(this.#regions.get(event.region.token)).toBeOneOf(["open", "sealed"]);
        this.#regions.set(event.region.token, "draining");
        break;
      case "tensord.region.deleted":
        expect(this.#regions.get(event.region.token)).toBe("draining");
        this.#regions.delete(event.region.token);
        break;
      case "tensord.session.opened":
        this.#sessions.add(event.session.token);
        break;
      case "tensord.session.ended":
        expect(this.#sessions.delete(event.session.token), "it was opened, and ends once").toBeTrue();
        break;
      default:
        break;
    }
  }

  compare(): void {
    const { books } = this.#store;
    const regions = [...books.regions.after(0)].map(({ token, state }) => `${token} is ${state}`);
    expect([...this.#regions].map(([token, state]) => `${token} is ${state}`).toSorted()).toEqual(regions.toSorted());
    expect([...this.#sessions].toSorted()).toEqual([...books.sessions.after(0)].map(({ token }) => token).toSorted());
  }
}
