/**
 * Elastic pools under anything in any order: pages come, go, move and are fetched, calls of the driver fail, in the undo too, workers die and come
 * back, and so does the server. At each rest the books say what there is of the card, all see the same map, and every page holds what was written to it.
 */

import { expect, test } from "bun:test";
import { Random } from "../harness/instance-random.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { TrialParty } from "../harness/trial-party.ts";

const rounds = roundsOf("elastic-at-random");
const stepsOfRound = 50;

test(
  `${rounds * stepsOfRound} steps at random lose no page, pull none, and leave none`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    const party = await TrialParty.open(random);
    for (let round = 0; round < rounds; round++) {
      for (let step = 0; step < stepsOfRound; step++) await party.step();
      if (random.isTrue(0.2)) await party.restart();
      await party.rest();
    }
    await party.close();
    console.log(JSON.stringify(party.counts));
    for (const deed of ["map", "unmap", "trim", "compact", "die"]) expect(party.counts[deed] ?? 0).toBeGreaterThan(0);
  },
  deadlineMsOf(rounds, 10_000),
);
