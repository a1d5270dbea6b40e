/**
 * Holds the leases of regions whose bytes are on their way out. The transport sends a file by descriptor, in the kernel,
 * and does not say when it has ended; but it has the file open until then, and that can be seen.
 */

import { limits } from "../limits.ts";
import { listDirectory } from "../os/files.ts";
import { type DataFile, toFileIdentity } from "./data-file.ts";
import type { Identity } from "./storage.ts";

/** A response that is about to send a file. */
export interface Outflow {
  /** Where to send from, to be opened within `limits.downloadOpenMs`. */
  readonly path: string;
  /** To be called once the transport has begun to send, and so has opened the file, or will not. */
  readonly begun: () => void;
}

interface Download {
  readonly file: DataFile;
  /** Responses that may not have opened the file yet, and since when, of `performance.now()`. */
  readonly opening: Map<Outflow, number>;
  /** When a response came or began last. */
  changedAt: number;
}

export class Downloads implements Disposable {
  /** By the identity of the file: several downloads of a region share one lease. */
  readonly #downloads = new Map<string, Download>();
  #timer: Timer | undefined;
  #look: Promise<void> | undefined;

  /** Takes `file` over. */
  begin(file: DataFile): Outflow {
    const identity = identify(file);
    const known = this.#downloads.get(identity);
    if (known !== undefined) file[Symbol.dispose]();
    const download = known ?? { file, opening: new Map(), changedAt: 0 };
    const outflow = {
      path: download.file.path,
      begun: () => {
        download.opening.delete(outflow);
        download.changedAt = performance.now();
      },
    };
    download.changedAt = performance.now();
    download.opening.set(outflow, download.changedAt);
    this.#downloads.set(identity, download);
    this.#timer ??= setInterval(() => void this.#lookOnce(), limits.downloadPollMs);
    return outflow;
  }

  /** Waits for downloads of a file that end just now: who has had the last byte may be faster than whoever closes the file. */
  async settle({ dev, ino }: Identity): Promise<void> {
    const identity = `${dev}:${ino}`;
    const deadline = performance.now() + limits.downloadSettleMs;
    while (this.#downloads.has(identity)) {
      await this.#lookOnce();
      if (performance.now() > deadline || !this.#downloads.has(identity)) return;
      await Bun.sleep(limits.downloadSettlePollMs);
    }
  }

  /** One look at a time, for all who ask meanwhile. */
  #lookOnce(): Promise<void> {
    this.#look ??= this.#letGo().finally(() => {
      this.#look = undefined;
    });
    return this.#look;
  }

  /** Lets go of what nobody sends any more. */
  async #letGo(): Promise<void> {
    const begin = performance.now();
    const open = await countOpenFiles().catch(() => undefined);
    // Without a descriptor nobody can look: the next look does.
    if (open === undefined) return;
    for (const [identity, download] of this.#downloads) {
      if ((open.get(identity) ?? 0) > download.file.ownDescriptors || download.changedAt >= begin) continue;
      for (const [outflow, since] of download.opening) {
        if (since < begin - limits.downloadOpenMs) download.opening.delete(outflow);
      }
      if (download.opening.size > 0) continue;
      this.#downloads.delete(identity);
      download.file[Symbol.dispose]();
    }
    if (this.#downloads.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const { file } of this.#downloads.values()) file[Symbol.dispose]();
    this.#downloads.clear();
  }
}

/** The identity of a file that is closed if it cannot be told. */
function identify(file: DataFile): string {
  try {
    return file.identity;
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** How many descriptors this process has of each file. In slices: there is one for every connection, too. */
async function countOpenFiles(): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  const descriptors = listDirectory("/proc/self/fd").map(Number);
  for (const [index, fd] of descriptors.entries()) {
    if (index % limits.descriptorSlice === limits.descriptorSlice - 1) await Bun.sleep(0);
    const identity = identityIfOpen(fd);
    if (identity !== undefined) counts.set(identity, (counts.get(identity) ?? 0) + 1);
  }
  return counts;
}

/** A descriptor may have been closed since it was listed. */
function identityIfOpen(fd: number): string | undefined {
  try {
    return toFileIdentity(fd);
  } catch {
    return undefined;
  }
}
