/**
 * Holds the leases of regions whose bytes are on their way out. The transport sends a file by descriptor, in the kernel,
 * and does not say when it has ended; but it has the file open until then, and that can be seen.
 */

import { readdirSync } from "node:fs";
import { limits } from "../limits.ts";
import { type DataFile, toFileIdentity } from "./data-file.ts";

interface Download {
  readonly file: DataFile;
  /** When a response began last, of `performance.now()`. */
  startedAt: number;
  /** Whether the file was seen open since. */
  isSeen: boolean;
}

export class Downloads implements Disposable {
  /** By the identity of the file: several downloads of a region share one lease. */
  readonly #downloads = new Map<string, Download>();
  #timer: Timer | undefined;
  #isLooking = false;

  /** Takes `file` over. @returns the path to send from, to be opened within `limits.downloadOpenMs`. */
  begin(file: DataFile): string {
    const { identity } = file;
    const known = this.#downloads.get(identity);
    if (known !== undefined) file[Symbol.dispose]();
    const download = known ?? { file, startedAt: 0, isSeen: false };
    download.startedAt = performance.now();
    download.isSeen = false;
    this.#downloads.set(identity, download);
    this.#timer ??= setInterval(() => void this.#look(), limits.downloadPollMs);
    return download.file.path;
  }

  /** Lets go of what nobody sends any more. */
  async #look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const begin = performance.now();
    const open = await countOpenFiles();
    this.#isLooking = false;
    for (const [identity, download] of this.#downloads) {
      // Our own descriptor is one of them.
      const isOpen = (open.get(identity) ?? 0) > 1;
      // The runtime opens the file in a thread of its own, which a busy machine may let wait.
      const mayOpenYet = !download.isSeen && download.startedAt > begin - limits.downloadOpenMs;
      download.isSeen ||= isOpen;
      if (isOpen || mayOpenYet) continue;
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

/** How many descriptors this process has of each file. In slices: there is one for every connection, too. */
async function countOpenFiles(): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  const descriptors = readdirSync("/proc/self/fd").map(Number);
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
