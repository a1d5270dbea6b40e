/**
 * A region's pages locked in memory for one process, without a copy: by a map of its own that is shared and read-only.
 * Locking the view itself would copy each of its pages, so the view stays what it is; the pages behind it are the same ones.
 */

import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { TensordError } from "../errors.ts";
import "../dispose.ts";
import { Barred, Mismatch, type Place } from "./attach.ts";
import { Attachment } from "./attachment.ts";
import { mlock, SystemError } from "./libc.ts";
import { openFile } from "./open.ts";

/** Locked at a time: what is there already takes about a millisecond, and others get their turn. */
const windowBytes = 8 * 2 ** 20;

/** Keeps a region's pages in memory, out of swap, until `release`, or declare it with `using`. */
export class MemoryLock {
  readonly #alias: Attachment;

  /** For `lockMemory` of this file. */
  constructor(alias: Attachment) {
    this.#alias = alias;
  }

  get isReleased(): boolean {
    return this.#alias.isClosed;
  }

  /** Lets the pages go. Whoever else has locked them keeps them. Safe to call twice. */
  release(): void {
    this.#alias.close();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/**
 * Locks all of the file at `place`.
 * @throws TensordError `mapping-failed` if this process may not lock as much, `stale-ref`; the signal's reason
 */
export async function lockMemory(place: Place, signal?: AbortSignal): Promise<MemoryLock> {
  const alias = await mapAlias(place, signal);
  try {
    for (let start = 0; start < place.byteSize; start += windowBytes) {
      signal?.throwIfAborted();
      const length = Math.min(windowBytes, place.byteSize - start);
      mlock(alias.addressOf(start, length), length);
      await setImmediate();
    }
    return new MemoryLock(alias);
  } catch (cause) {
    alias.close();
    if (!(cause instanceof SystemError)) throw cause;
    throw new TensordError(
      "mapping-failed",
      `Cannot lock the ${place.byteSize} bytes of region ${place.region} in memory: ${cause.code}; ` +
        `this process may lock ${memoryLimit()}`,
      { hint: "raise ulimit -l (docker: --ulimit memlock=-1), or give it CAP_IPC_LOCK", cause },
    );
  }
}

async function mapAlias(place: Place, signal: AbortSignal | undefined): Promise<Attachment> {
  const map = async (isLeased: boolean) => {
    const opened = await openFile(place, { isWriter: false, isLeased, signal });
    return new Attachment(opened, 0, place.byteSize, "strict");
  };
  try {
    return await map(true);
  } catch (error) {
    // What keeps the mapping that is there keeps this one.
    if (error instanceof Barred) return map(false);
    throw error instanceof Mismatch ? error.toError() : error;
  }
}

function memoryLimit(): string {
  try {
    const limit = /^Max locked memory +(\S+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return limit === "unlimited" ? "any amount" : `${limit} bytes`;
  } catch {
    return "less";
  }
}
