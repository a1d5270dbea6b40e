/** What may be evicted beside regions: pages of an elastic pool. They go by being announced, and when those who have them let go. */

import type { Model } from "./region.ts";

export interface EvictablePages {
  /** The pool that they are of. */
  readonly ownPool: object;
  readonly modelBooks: Model;
  /** The pool of the server and of the model that they are charged to. */
  readonly poolName: string;
  /** What would be free without them: nothing of a pool that is charged its minimum anyway. */
  readonly freeableBytes: number;
  /** Whether they were announced to go. */
  readonly isLeaving: boolean;
  /** When they were mapped, or a page of them was taken; in ms since the epoch. */
  readonly lastUsedAt: number;
  /** Has them go, unless they do already. @returns the bytes that are free, once they are; 0 if they stay. */
  evict(actor: string | undefined): Promise<number>;
}
