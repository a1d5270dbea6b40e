/**
 * A mapped region, as its region and tensors share it: its pages, the file they came from, and the switch between writing
 * and reading that a seal makes. It asks no server.
 */

import { TensordError } from "../errors.ts";
import { codeOf, mappingFailed, type Place } from "./attach.ts";
import { type Attached, closedHere } from "./attached.ts";
import type { AttachedBy, RegionFile } from "./open.ts";
import { type Access, Pages } from "./pages.ts";
import { Share } from "./share.ts";

/** Who wants to know what becomes of a mapping. It must not refer to the attachment, which would then never be collected. */
export interface MappingObserver {
  /** `isMakers`: this process made it, and uses it for nothing else. */
  remapped(access: Access, isMakers: boolean): void;
  /** The pages are gone: it was closed, and the last array was collected. */
  unmapped(): void;
}

/** What a session is told of: a mapping, or what stands for one. */
export interface Observed {
  readonly place: Place;
  readonly access: Access;
  readonly isMakers: boolean;
  observe(observer: MappingObserver): void;
}

/** Holds one mapping until `close`. Every use after that throws `closed`. */
export class Attachment implements Attached, Observed {
  isOpenHandOff = false;
  #place: Place;
  readonly #pages: Pages;
  readonly #letGo: () => void;
  #access: Access;
  #by: AttachedBy;
  #isClosed = false;
  #observer: MappingObserver | undefined;

  /**
   * Maps a range of an open file, which it closes: the lease lives as long as the mapping does.
   * @throws TensordError `mapping-failed`
   */
  constructor(opened: RegionFile, byteOffset: number, byteSize: number, access: Access) {
    const { file, place, by } = opened;
    this.#place = place;
    this.#pages = using(opened, () => {
      try {
        return new Pages(file.fd, byteOffset, byteSize, access);
      } catch (cause) {
        const { region, path } = place;
        if (access === "write" && codeOf(cause) === "EPERM") throw finalByKernel(region, cause);
        const what = `map region ${region}: ${codeOf(cause)} for ${byteSize} bytes of ${path ?? "its file"}`;
        throw mappingFailed(cause, what, isOverLimit(cause) ? lockedHint : limitedHint);
      }
    });
    this.#access = access;
    this.#by = by;
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

  /** How its file was reached, when it was last opened. */
  get attachedBy(): AttachedBy {
    return this.#by;
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

  /** All that is mapped, in whole pages. @throws TensordError `closed` */
  range(): { readonly address: bigint; readonly length: number } {
    this.check();
    return this.#pages.range;
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

  /**
   * Maps another file of the region over it, which it closes: changes how it is mapped, and which locks it holds; every address
   * stays. @throws TensordError `mapping-failed`, `closed`, and changes nothing then
   */
  remap(opened: RegionFile, access: Access): void {
    const { file, by } = opened;
    using(opened, () => {
      this.check();
      try {
        this.#pages.remap(file.fd, access);
      } catch (cause) {
        const { region, path } = this.#place;
        if (access === "write" && codeOf(cause) === "EPERM") throw finalByKernel(region, cause);
        throw mappingFailed(cause, `re-map region ${region}: ${codeOf(cause)} for ${path ?? "its file"}`);
      }
    });
    this.#access = access;
    this.#by = by;
    this.#observer?.remapped(access, this.isMakers);
  }
}

/** The kernel's seal (fcntl(2), `F_SEAL_WRITE`) cannot be taken back. */
function finalByKernel(region: string, cause: unknown): TensordError {
  return new TensordError(
    "region-sealed",
    `Cannot map region ${region} for writing: it is open, but the kernel has made its bytes final: a seal was ` +
      "refused after that, or a worker did it by itself",
    {
      hint: "seal it again, which goes on from there, and attach it without writable; or delete it and create it anew",
      fields: { errno: "EPERM" },
      cause,
    },
  );
}

const lockedHint =
  "this process locks its memory (mlockall), and ulimit -l leaves no room for more: raise it, or lock less";
const limitedHint =
  "is the address space limited (ulimit -v), are there too many mappings (vm.max_map_count), or does " +
  "vm.overcommit_memory=2 count private mappings? Then { strict: true } helps a reader";

function using<Result>({ file }: RegionFile, use: () => Result): Result {
  try {
    return use();
  } finally {
    file.close();
  }
}

/** mmap's answer to who has locked his address space and may not lock as much more. */
function isOverLimit(error: unknown): boolean {
  return codeOf(error) === "EAGAIN";
}
