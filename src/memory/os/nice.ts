/** A background thread's place behind the one that answers requests. */

import { getPriority, setPriority } from "node:os";
import { limits } from "../limits.ts";

/**
 * Makes the calling thread nice: on Linux a priority is a thread's own (setpriority(2) with 0). A server that runs nicer
 * already stays as it is, since only the privileged may raise a priority again.
 */
export function yieldToRequests(nice: number = limits.laneNice): void {
  if (getPriority(0) < nice) setPriority(0, nice);
}
