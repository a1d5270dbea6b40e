/**
 * A region may stand while its file is not there for a moment: a stock reader that ends unlinks the public name. The server
 * links it back when it is asked about the region, so it is asked before anybody is told that the region is gone.
 */

import { isTensordError } from "../errors.ts";
import { Mismatch, type Place } from "../memory/attach.ts";
import type { Asker } from "./asker.ts";

/** A stock reader may unlink the name that was just brought back; not four times in a row. */
const tries = 4;
/** A server that is away is not waited for. */
const answerMs = 2_000;

/** The same place, about which that server can be asked, and whose file its broker hands out. */
export function standingAt({ api, broker }: Asker, place: Place): Place {
  const { region, dev, ino } = place;
  const stands = async () => {
    try {
      const { state, storage } = await api.region(region, AbortSignal.timeout(answerMs));
      return !["draining", "deleted"].includes(state) && storage.dev === dev && storage.ino === ino;
    } catch {
      return false;
    }
  };
  return { ...place, stands, broker };
}

/** Does what needs the file, and once more each time that it is missing and the region stands. Throws what `action` does. */
export async function whileStanding<Result>(
  { stands }: Place,
  action: () => Result | Promise<Result>,
): Promise<Result> {
  for (let left = tries - 1; ; left--) {
    try {
      return await action();
    } catch (error) {
      if (left === 0 || !isMissing(error) || !(await stands?.())) throw error;
    }
  }
}

function isMissing(error: unknown): boolean {
  return isTensordError(error) && error.cause instanceof Mismatch && error.cause.difference === "other";
}
