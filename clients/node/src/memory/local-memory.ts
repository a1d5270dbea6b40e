/**
 * Memory of this process that is mapped as a region's file is: what the client has of a region that no process maps (`heap`).
 * It is a memfd, so that views, private pages and the seal in place are those of every other region. Who downloads into it and
 * uploads it is the caller's business.
 */

import { ftruncateSync, openSync, write } from "node:fs";
import { promisify } from "node:util";
import { isOutOfDescriptors, outOfDescriptors } from "../descriptors.ts";
import { TensordError } from "../errors.ts";
import { HeldFile } from "./held-file.ts";
import { addFileSeals, createMemfd, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE } from "./libc-memfd.ts";

const writeTo = promisify(write);

/** Zeros, until nobody holds it any more. Whoever gets one holds it, and lets go. */
export class LocalMemory {
  readonly region: string;
  readonly byteSize: number;
  readonly #file: HeldFile;
  readonly #ended: () => void;
  #holders = 1;

  /**
   * @param ended is called when the last holder has let go
   * @throws TensordError `out-of-descriptors`, `mapping-failed`
   */
  constructor(region: string, byteSize: number, ended: () => void = () => {}) {
    this.region = region;
    this.byteSize = byteSize;
    this.#ended = ended;
    try {
      this.#file = new HeldFile(createMemfd(`tensord-copy.${region}`), "kernel");
    } catch (cause) {
      throw toFailure(`have a copy of region ${region}`, cause, "want Linux 3.17 or newer");
    }
    try {
      ftruncateSync(this.#file.fd, byteSize);
      // It cannot change its size under its views.
      addFileSeals(this.#file.fd, F_SEAL_SHRINK | F_SEAL_GROW);
    } catch (cause) {
      this.#file.close();
      throw toFailure(`have ${byteSize} bytes for a copy of region ${region}`, cause, "is ulimit -f set?");
    }
  }

  /** Where its bytes can be read from, by its path in this process. */
  get path(): string {
    return `/proc/self/fd/${this.#file.fd}`;
  }

  get isEnded(): boolean {
    return this.#holders === 0;
  }

  /** One holder more. */
  hold(): this {
    this.#holders += 1;
    return this;
  }

  /** One less; with the last it is gone, but for what is mapped of it. */
  letGo(): void {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    this.#file.close();
    this.#ended();
  }

  /** A file with an open file description of its own, which the caller closes. @throws TensordError */
  open(isWriter: boolean): HeldFile {
    try {
      return new HeldFile(openSync(this.path, isWriter ? "r+" : "r"));
    } catch (cause) {
      throw toFailure(`open this process's copy of region ${this.region}`, cause, "is /proc mounted here?");
    }
  }

  /** Puts bytes into it. @throws TensordError `mapping-failed` without memory for them */
  async write(byteOffset: number, bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.byteLength; ) {
        const { bytesWritten } = await writeTo(this.#file.fd, bytes, done, bytes.byteLength - done, byteOffset + done);
        done += bytesWritten;
      }
    } catch (cause) {
      throw toFailure(`fill this process's copy of region ${this.region}`, cause, "is there memory left?");
    }
  }

  /** Makes its bytes final by the kernel's word: nobody maps it for writing any more. */
  seal(): void {
    try {
      addFileSeals(this.#file.fd, F_SEAL_WRITE);
    } catch {
      // A view of it that another thread still has for writing: what others attach is what was uploaded all the same.
    }
  }
}

function toFailure(what: string, cause: unknown, hint: string): TensordError {
  if (isOutOfDescriptors(cause)) return outOfDescriptors(what, cause);
  const reason = (cause as NodeJS.ErrnoException).code ?? cause;
  return new TensordError("mapping-failed", `Cannot ${what}: ${reason}`, { hint, cause });
}
