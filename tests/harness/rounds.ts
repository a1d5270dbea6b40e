/**
 * How often tests of many rounds go round: `tests/rounds.json` has both forms of each. `npm test` runs the short ones,
 * `npm test -- --long` the others; what a seed does in the rounds of the short form it does in those of the long one.
 */

import rounds from "../rounds.json" with { type: "json" };

export type Rounds = keyof typeof rounds;

/** TEST_ROUNDS is any number by hand: `TEST_ROUNDS=5000 npm test -- tests/faults/killed-at-random.test.ts`. */
export function roundsOf(test: Rounds): number {
  const asked = process.env.TEST_ROUNDS;
  if (asked !== undefined) return Number(asked);
  return rounds[test][process.env.TEST_LONG === undefined ? "short" : "long"];
}

/** A deadline for so many rounds, should one of them hang. */
export function deadlineMsOf(count: number, roundMs: number): number {
  return 5 * 60_000 + count * roundMs;
}
