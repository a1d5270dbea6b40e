/** What decides a region's end, as its caller said it. What stands with nothing is refused here, in the caller's words. */

import { TensordError } from "../errors.ts";
import type { Owner } from "../options.ts";

/** The owner among the options, as a request has it. @throws TensordError `validation-failed` */
export function toOwner({ ttlMs, lingerMs, handoffMs, persist }: Owner): Owner {
  // JavaScript lets through what the type forbids.
  if (handoffMs !== undefined && lingerMs === undefined) {
    throw new TensordError(
      "validation-failed",
      "Cannot let a hand-off wait: handoffMs is there without lingerMs, want both",
      { hint: "a hand-off has lingerMs: 0" },
    );
  }
  return { ttlMs, lingerMs, handoffMs, persist } as Owner;
}
