/**
 * A mapped region, as its region and tensors share it: the mapping, the file it came from, and the switch between writing
 * and reading that a seal makes. It asks no server.
 */

import { TensordError } from "../errors.ts";
import { mapPlace, type Place, remapPlace } from "./attach.ts";
import type { Access, Mapping } from "./mapping.ts";

/** Who wants to know what becomes of a mapping. It must not refer to the attachment, which would then never be collected. */
export interface MappingObserver {
  remapped(access: Access): void;
  /** The pages are gone: it was closed, and the last array was collected. */
  unmapped(): void;
}

/** Holds one mapping until `close`. Every use after that throws `closed`. */
export class Attachment {
  readonly place: Place;
  readonly #mapping: Mapping;
  #observer: MappingObserver | undefined;

  /** Throws as `mapPlace` does. */
  constructor(place: Place, byteOffset: number, byteSize: number, access: Access) {
    this.place = place;
    this.#mapping = mapPlace(place, byteOffset, byteSize, access);
  }

  /** The mapping. @throws TensordError `closed` */
  get mapping(): Mapping {
    if (this.#mapping.isClosed) {
      throw new TensordError("closed", `Cannot use region ${this.place.region}: it was closed here`, {
        hint: "attach it again; arrays taken before stay valid",
      });
    }
    return this.#mapping;
  }

  get isClosed(): boolean {
    return this.#mapping.isClosed;
  }

  get access(): Access {
    return this.#mapping.access;
  }

  observe(observer: MappingObserver): void {
    this.#observer = observer;
    this.mapping.whenUnmapped(() => observer.unmapped());
  }

  close(): void {
    this.#mapping.close();
  }

  /** Changes how it is mapped, and which locks it holds; every address stays. Throws as `mapPlace` does. */
  remap(access: Access): void {
    remapPlace(this.place, this.mapping, access);
    this.#observer?.remapped(access);
  }
}
