/**
 * A mapped region, as its region and tensors share it: its pages, the file they came from, and the switch between writing
 * and reading that a seal makes. It asks no server.
 */

import { mapPlace, type Place, remapPlace } from "./attach.ts";
import { type Attached, closedHere } from "./attached.ts";
import type { Access, Pages } from "./pages.ts";
import { Share } from "./share.ts";

/** Who wants to know what becomes of a mapping. It must not refer to the attachment, which would then never be collected. */
export interface MappingObserver {
  /** `isMakers`: this process made it, and uses it for nothing else. */
  remapped(access: Access, isMakers: boolean): void;
  /** The pages are gone: it was closed, and the last array was collected. */
  unmapped(): void;
}

/** Holds one mapping until `close`. Every use after that throws `closed`. */
export class Attachment implements Attached {
  isOpenHandOff = false;
  #place: Place;
  readonly #pages: Pages;
  readonly #letGo: () => void;
  #access: Access;
  #isClosed = false;
  #observer: MappingObserver | undefined;

  /** Throws as `mapPlace` does. */
  constructor(place: Place, byteOffset: number, byteSize: number, access: Access, options = { isLeased: true }) {
    this.#place = place;
    this.#pages = mapPlace(place, byteOffset, byteSize, access, options);
    this.#access = access;
    this.#letGo = this.#pages.lifetime.hold(this);
  }

  get place(): Place {
    return this.#place;
  }

  /** Whether this process made it, and uses it for nothing else. */
  get isMakers(): boolean {
    return this.#place.role === "maker";
  }

  /** From the next switch on this process is one of those for whom the region was made. */
  useAsWell(): void {
    if (this.isMakers) this.#place = { ...this.#place, role: "builder" };
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get access(): Access {
    return this.#access;
  }

  check(): void {
    if (this.#isClosed) throw closedHere(this.place);
  }

  buffer(byteOffset: number, byteSize: number): ArrayBuffer {
    this.check();
    return this.#pages.buffer(byteOffset, byteSize);
  }

  /** Where this range of the file is in memory, for as long as it is not closed. @throws TensordError `closed` */
  addressOf(byteOffset: number, byteSize: number): bigint {
    this.check();
    return this.#pages.addressOf(byteOffset, byteSize);
  }

  whenOver(ended: () => void): void {
    this.#pages.lifetime.whenOver(ended);
  }

  /** Another hold on the same pages, which outlives this one. @throws TensordError `closed` */
  share(): Share {
    this.check();
    return new Share(this.place, this.#pages, this.#access);
  }

  observe(observer: MappingObserver): void {
    this.#observer = observer;
    this.whenOver(() => observer.unmapped());
  }

  close(): void {
    this.#isClosed = true;
    this.#letGo();
  }

  /** Changes how it is mapped, and which locks it holds; every address stays. Throws as `mapPlace` does. */
  remap(access: Access): void {
    this.check();
    remapPlace(this.place, this.#pages, access);
    this.#access = access;
    this.#observer?.remapped(access, this.isMakers);
  }
}
