/** What a creation fails with that somebody stopped. */

import { TensordError } from "../error.ts";
import { describe } from "../journal/region-record.ts";
import type { Region } from "../state/region.ts";

export function cancelled(region: Region, why: string): TensordError {
  return new TensordError("cancelled", `Cannot finish the creation of ${describe(region)}: ${why}`, {
    hint: "Nothing of it is left; create it again if it is needed.",
  });
}
