/**
 * Sealed regions get huge pages, one after the other, after their seal was answered: those that lay ready have them already. Nobody
 * waits for it, and a region that is deleted meanwhile is left alone.
 */

import type { Collapsed } from "../../../os/libc-pages.ts";
import { toWholeChunks } from "./plan.ts";
import type { ReserveLane } from "./reserve-lane.ts";
import { reserveLimits } from "./reserve-limits.ts";

export interface SealedFile {
  /** The keeper's link, as every thread of this process reaches it. */
  readonly path: string;
  readonly byteSize: number;
  /** Whether it stands, and is sealed. */
  readonly isWanted: () => boolean;
}

export interface CollapserParts {
  readonly lane: Pick<ReserveLane, "collapse">;
  /** Whether there are huge pages, and nobody else needs the memory. */
  readonly mayWork: () => boolean;
  readonly onCollapsed: (collapsed: Collapsed) => void;
  readonly onFailure: (error: unknown) => void;
}

export class Collapser {
  readonly #parts: CollapserParts;
  readonly #waiting: SealedFile[] = [];
  #working: Promise<void> | undefined;

  constructor(parts: CollapserParts) {
    this.#parts = parts;
  }

  /** Takes a file that was sealed just now. Of many the first are forgotten, whose readers have begun. */
  add(file: SealedFile): void {
    if (!this.#parts.mayWork() || toWholeChunks(file.byteSize) === 0) return;
    this.#waiting.push(file);
    if (this.#waiting.length > reserveLimits.collapseQueue) this.#waiting.shift();
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  /** Resolves once nothing waits. */
  async settled(): Promise<void> {
    await this.#working;
  }

  async #work(): Promise<void> {
    // The answer to the seal first.
    await new Promise((resolve) => setTimeout(resolve, reserveLimits.refillMs).unref());
    for (let file = this.#waiting.shift(); file !== undefined; file = this.#waiting.shift()) {
      await this.#collapse(file).catch(this.#parts.onFailure);
    }
  }

  /** Whole chunks only: one that the file ends in would take bytes that no book has. */
  async #collapse({ path, byteSize, isWanted }: SealedFile): Promise<void> {
    const end = toWholeChunks(byteSize);
    for (let done = 0; done < end && isWanted() && this.#parts.mayWork(); done += reserveLimits.windowBytes) {
      const windowBytes = Math.min(reserveLimits.windowBytes, end - done);
      const collapsed = await this.#parts.lane.collapse(path, done, windowBytes);
      this.#parts.onCollapsed(collapsed);
      if (collapsed.refusal !== undefined) return;
    }
  }
}
