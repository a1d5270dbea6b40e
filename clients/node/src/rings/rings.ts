/** Other processes' rings, each mapped once and whole for all references into it: no mapping and no page fault a request. */

import type { LockOptions, SlotOptions } from "../options.ts";
import "../dispose.ts";
import { lstatSync } from "node:fs";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { isTensordError, TensordError } from "../errors.ts";
import type { Place } from "../memory/attach.ts";
import type { Attached } from "../memory/attached.ts";
import { Attachment } from "../memory/attachment.ts";
import { openFileNow, sizeOf } from "../memory/open.ts";
import type { Access } from "../memory/pages.ts";
import type { Asker } from "../regions/asker.ts";
import { type AnyReference, placeOf, type TensorReference, toTensorReference } from "../regions/reference.ts";
import { standingAt } from "../regions/standing.ts";
import type { OpenedTensor } from "../regions/tensor.ts";
import { type MapReference, mapAlone, openNow, openWhenFree } from "./open-reference.ts";

/**
 * Rings of other processes, kept mapped from one reference to the next; `client.rings` makes it. Close it, or declare it
 * with `using`; tensors that are open stay so. A ring whose owner has ended is held until the next `open` that finds this
 * out, or `close`.
 *
 * Who reads has no private pages, as with `client.open`: a stray write would stay in one, and later tensors of that slot
 * would show it. The processor forbids writing instead, and such a write ends the process.
 */
export class Rings {
  readonly #asker: Asker;
  readonly #alone: MapReference;
  readonly #mapped = new Map<string, Attachment>();
  #isClosed = false;

  constructor(asker: Asker) {
    this.#asker = asker;
    this.#alone = mapAlone(asker);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * As `client.open`, for references of rings.
   * @throws TensordError as `client.open` does, and `closed`; `validation-failed` for a reference of no ring
   */
  open(given: AnyReference, options: SlotOptions = {}): OpenedTensor {
    checkOptions("open a slot", tables.slot, options);
    const reference = this.#check(toTensorReference(given));
    try {
      return openNow(this.#asker, reference, toAccess(options), this.#map);
    } catch (error) {
      throw this.#tidied(error, reference);
    }
  }

  /** As `open`, and waits while another process has the slot locked. */
  async openWhenFree(given: AnyReference, options: SlotOptions & LockOptions = {}): Promise<OpenedTensor> {
    checkOptions("open a slot", tables.slotWhenFree, options);
    const reference = this.#check(toTensorReference(given));
    try {
      return await openWhenFree(this.#asker, reference, toAccess(options), this.#map, options);
    } catch (error) {
      throw this.#tidied(error, reference);
    }
  }

  /** Lets go of the rings. Safe to call twice. Tensors that are open stay so. */
  close(): void {
    this.#isClosed = true;
    for (const whole of this.#mapped.values()) whole.close();
    this.#mapped.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  readonly #map = (reference: TensorReference, access: Access): Attached => {
    // It may have been closed during a wait.
    this.#check(reference);
    const key = `${access} ${fileOf(reference)}`;
    let whole = this.#mapped.get(key);
    if (whole === undefined) {
      this.#forgetTheGone();
      whole = mapWhole(standingAt(this.#asker, placeOf(reference)), access);
      this.#asker.session?.report(whole, false);
      this.#mapped.set(key, whole);
    }
    // Forged, or the file was another one when it was mapped. Looked at by itself it will show.
    if (reference.byteOffset + reference.byteSize > whole.place.byteSize) return this.#alone(reference, access);
    return whole.share();
  };

  #check(reference: TensorReference): TensorReference {
    if (this.#isClosed) {
      throw new TensordError("closed", "Cannot open a slot: these rings were closed here", {
        hint: "client.rings() makes new ones",
      });
    }
    if (reference.generation === 0) {
      throw new TensordError("validation-failed", "Cannot open a slot: the reference is of no ring", {
        hint: "use client.open",
      });
    }
    return reference;
  }

  /** A stale reference may be the first word of a ring that is gone. */
  #tidied(error: unknown, reference: TensorReference): unknown {
    if (isTensordError(error, "stale-ref")) this.#forgetTheGone(fileOf(reference));
    return error;
  }

  /** @param stale the file that a reference was stale of: without a name to look at, nobody knows whether it is gone. */
  #forgetTheGone(stale?: string): void {
    for (const [key, whole] of this.#mapped) {
      if (whole.attachedBy === "descriptor" ? fileOf(whole.place) !== stale : isThere(whole.place)) continue;
      this.#mapped.delete(key);
      whole.close();
    }
  }
}

function toAccess({ writable = false }: SlotOptions): Access {
  return writable ? "write" : "strict";
}

/** One file, as those who refer to it name it. */
function fileOf({ path, dev, ino }: Pick<Place, "path" | "dev" | "ino">): string {
  return `${dev} ${ino} ${path}`;
}

/** @throws Mismatch, TensordError, as `openFileNow` and `Attachment` do */
function mapWhole(place: Place, access: Access): Attachment {
  const opened = openFileNow(place, { isWriter: access === "write", isLeased: true });
  const byteSize = sizeOf(opened);
  return new Attachment({ ...opened, place: { ...opened.place, byteSize } }, 0, byteSize, access);
}

function isThere({ path, dev, ino }: Place): boolean {
  try {
    const status = lstatSync(path ?? "", { bigint: true });
    return String(status.dev) === dev && String(status.ino) === ino;
  } catch {
    return false;
  }
}
