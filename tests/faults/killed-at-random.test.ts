/**
 * SIGKILL (and now and then SIGTERM) at random times under concurrent load, again and again on the same instance. What a
 * client got a 2xx for must be there; what it asked for without an answer may be there whole, or not at all. What may be
 * gone is exact, too: by its own DELETE, with its session, or as much as an eviction needs.
 */

import { afterAll, expect } from "bun:test";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkRows } from "../harness/instance-check.ts";
import { leap, leapingClock } from "../harness/instance-clock.ts";
import { ForeignFiles } from "../harness/instance-foreign.ts";
import { needsRoom, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { lockPageBytes, Tmpfs } from "../harness/instance-tmpfs.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { checkRestart } from "./random-check.ts";
import { Client } from "./random-client.ts";
import { Party } from "./random-party.ts";

const rounds = roundsOf("killed-at-random");
const clientCount = 6;
const MiB = 2 ** 20;

afterAll(assertNothingLeft);

testWith(needsRoom(256 * MiB))(
  `an instance survives ${rounds} kills at random times under the load of ${clientCount} clients`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    // Bytes can be accounted for only where nobody else has any.
    using tmpfs = needsRoot === undefined ? new Tmpfs({ sizeBytes: 512 * MiB }) : undefined;
    await using server = new TestServer({ env: leapingClock, ...(tmpfs && { shmDirectory: tmpfs.path }) });
    // A kill between a region's row and its name: the start gives it the name, and tells that like any other relink.
    server.log.expect(/^tensord\.region\.relinked$/);
    using foreign = new ForeignFiles(server.instance);
    const foreignBytes = tmpfs?.usedBytes ?? 0;
    const party = new Party();
    const clients = Array.from(
      { length: clientCount },
      (_, index) => new Client(`c${index}`, new Random(random.integer(0, 2 ** 31)), party, () => leap(server)),
    );
    const counts = { seed: random.seed, kills: 0, ...noneOf(tmpfs !== undefined) };
    const check = async () => {
      await checkRestart(server, party, clients, foreign.names);
      foreign.assertUntouched();
      const host = hostOf(await server.api.stats());
      if (counts.unaccounted_bytes !== null) {
        counts.unaccounted_bytes += Math.abs((host.unaccounted_bytes ?? Number.NaN) - lockPageBytes - foreignBytes);
      }
      counts.orphans = party.orphans.length;
      counts.lost_regions = party.lost.length;
      counts.repeated_builds = party.repeated.length;
      const { orphans, lost, repeated } = party;
      expect({ orphans, lost, repeated }).toEqual({ orphans: [], lost: [], repeated: [] });
    };
    try {
      for (let orderly = 0; counts.kills < rounds; ) {
        await server.start();
        await check();
        const working = Promise.all(clients.map((client) => client.work(server.api)));
        const isOrderly = random.isTrue(0.1) && orderly < rounds / 4;
        await Promise.race([working, someTime(random.integer(2, 120), party)]);
        expect(await server.kill(isOrderly ? "SIGTERM" : "SIGKILL")).toBe(isOrderly ? 0 : "SIGKILL");
        await working;
        if (isOrderly) orderly += 1;
        else counts.kills += 1;
      }
      await server.start();
      await check();
    } finally {
      console.log(JSON.stringify(counts));
    }
    console.log(JSON.stringify({ acknowledged: party.acknowledged, evicted: party.evicted }));
    expect(counts).toEqual({ seed: random.seed, kills: rounds, ...noneOf(tmpfs !== undefined) });
    assertVariety(party);
    await server.stop();
    checkRows(server.instance);
    foreign.assertUntouched();
  },
  deadlineMsOf(rounds, 10_000),
);

/** So long, and longer where next to nothing was answered meanwhile: the machine is busy with something else. */
async function someTime(ms: number, party: Party): Promise<void> {
  const enough = party.answers + Math.floor(ms / 4);
  await Bun.sleep(ms);
  await until("some requests are answered", () => party.answers >= enough);
}

function noneOf(isMeasured: boolean) {
  const unaccounted_bytes: number | null = isMeasured ? 0 : null;
  return { orphans: 0, unaccounted_bytes, lost_regions: 0, repeated_builds: 0 };
}

/** A load that never did a thing would prove nothing about it. In few rounds by chance it never does what it does seldom. */
function assertVariety({ acknowledged, evicted }: Party): void {
  const often = ["create", "seal", "delete", "label", "claim"];
  const few = rounds >= 100 ? rounds / 20 : 0;
  const seldom = few === 0 ? [] : ["open-session", "end-session", "release", "lease", "end-lease", "evict"];
  for (const kind of [...often, ...seldom]) expect(acknowledged[kind] ?? 0, kind).toBeGreaterThan(few);
  if (few > 0) expect(evicted, "regions that were evicted").toBeGreaterThan(few);
}
