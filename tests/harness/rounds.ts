/**
 * How often tests of many rounds go round: `tests/rounds.json` has both forms of each. `npm test` runs the short ones,
 * `npm test -- --long` the others; what a seed does in the rounds of the short form it does in those of the long one.
 */

import rounds from "../rounds.json" with { type: "json" };

export type Rounds = keyof typeof rounds;

/** Whether the long form is asked for, in which nothing is left out for being like something else. */
export const isLong = process.env.TEST_LONG !== undefined;

/** TEST_ROUNDS is any number by hand: `TEST_ROUNDS=5000 npm test -- tests/faults/killed-at-random.test.ts`. */
export function roundsOf(test: Rounds): number {
  const asked = process.env.TEST_ROUNDS;
  if (asked !== undefined) return Number(asked);
  return rounds[test][isLong ? "long" : "short"];
}

/** A deadline for so many rounds, should one of them hang. */
export function deadlineMsOf(count: number, roundMs: number): number {
  return 5 * 60_000 + count * roundMs;
}
