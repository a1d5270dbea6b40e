/**
 * A region on a device, as this process holds it: its lease file, whose locks are the lease, and the driver's descriptor of its
 * memory. Nothing is mapped here: who imports the descriptor is a native addon of the program's.
 */

import { TensordError } from "../errors.ts";
import type { Place } from "./attach.ts";
import type { MappingObserver, Observed } from "./attachment.ts";
import type { HeldFile } from "./held-file.ts";
import { Lifetime } from "./lifetime.ts";
import type { RegionFile } from "./open.ts";

/**
 * Those whose descriptor was told: whoever was told may have the memory mapped, which nothing here sees. So the collector takes none
 * of them: the lease ends by `close`, or with the thread.
 */
const told = new Set<DeviceAttachment>();

/** Holds both descriptors until `close`. */
export class DeviceAttachment implements Observed {
  readonly place: Place;
  readonly access: "strict" | "write";
  readonly #handle: HeldFile;
  readonly #lifetime = new Lifetime();
  readonly #letGo: () => void;
  #isTaken = false;
  #isClosed = false;

  /** @param opened as on a device; both of its files are this object's from now on. */
  constructor({ file, handle, place }: RegionFile, access: "strict" | "write") {
    if (handle === undefined) throw new TypeError("the file was not opened as on a device");
    this.place = place;
    this.access = access;
    this.#handle = handle;
    this.#lifetime.whenOver(() => {
      handle.close();
      // The last: until then the server knows that the memory is in use.
      file.close();
    });
    this.#letGo = this.#lifetime.hold(this);
  }

  /** Whether this process made it. */
  get isMakers(): boolean {
    return this.place.role === "maker";
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The driver's descriptor, which stays this object's. @throws TensordError `closed` */
  get fd(): number {
    this.#check("use");
    told.add(this);
    return this.#handle.fd;
  }

  /** The driver's descriptor, which is the caller's from now on. @throws TensordError `closed` */
  takeFd(): number {
    this.#check("take");
    told.add(this);
    this.#isTaken = true;
    return this.#handle.take();
  }

  whenOver(ended: () => void): void {
    this.#lifetime.whenOver(ended);
  }

  observe(observer: MappingObserver): void {
    this.whenOver(() => observer.unmapped());
  }

  /** Safe to call twice. */
  close(): void {
    this.#isClosed = true;
    told.delete(this);
    this.#letGo();
  }

  #check(action: string): void {
    if (!this.#isClosed && !this.#isTaken) return;
    const why = this.#isClosed ? "it was closed here" : "it was taken over before";
    throw new TensordError("closed", `Cannot ${action} the descriptor of region ${this.place.region}: ${why}`, {
      hint: "attach the region again, which brings another descriptor of the same memory",
    });
  }
}
