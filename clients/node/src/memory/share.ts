/**
 * One of several holds on the same pages, with an end of its own: a tensor in a ring that is mapped once for all its tensors.
 * It is made of the pages and of a lifetime, and knows nothing of who mapped them.
 */

import type { Place } from "./attach.ts";
import { type Attached, closedHere } from "./attached.ts";
import { Lifetime } from "./lifetime.ts";
import type { Access, Pages } from "./pages.ts";

export class Share implements Attached {
  readonly place: Place;
  readonly access: Access;
  readonly isOpenHandOff = false;
  readonly #pages: Pages;
  readonly #lifetime = new Lifetime();
  readonly #letGo: readonly (() => void)[];
  readonly #held = new WeakSet<ArrayBuffer>();
  #isClosed = false;

  constructor(place: Place, pages: Pages, access: Access) {
    this.place = place;
    this.access = access;
    this.#pages = pages;
    this.#letGo = [pages.lifetime.hold(this), this.#lifetime.hold(this)];
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  check(): void {
    if (this.#isClosed) throw closedHere(this.place);
  }

  buffer(byteOffset: number, byteSize: number): ArrayBuffer {
    this.check();
    const buffer = this.#pages.buffer(byteOffset, byteSize);
    if (!this.#held.has(buffer)) this.#lifetime.hold(buffer);
    this.#held.add(buffer);
    return buffer;
  }

  whenOver(ended: () => void): void {
    this.#lifetime.whenOver(ended);
  }

  close(): void {
    this.#isClosed = true;
    for (const letGo of this.#letGo) letGo();
  }
}
