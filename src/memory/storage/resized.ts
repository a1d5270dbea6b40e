/** What is said of a region's file whose size a worker has changed, whoever notices it. */

import { type FailureFacts, TensordError } from "../error.ts";

/** @param action `Cannot <do what>`. @param seen the bytes that the file has; undefined if all that is known is that they are fewer. */
export function resized(
  action: string,
  seen: number | undefined,
  want: number,
  facts: FailureFacts = {},
  cause?: unknown,
): TensordError {
  const how = seen !== undefined && seen > want ? "extended" : "truncated";
  const has = seen === undefined ? "fewer" : `${seen}`;
  return new TensordError(
    "io-error",
    `${action}: its file has ${has} bytes, want ${want}`,
    { ...facts, hint: `A worker ${how} it, which none may. Delete the region and create it again.` },
    cause === undefined ? undefined : { cause },
  );
}
