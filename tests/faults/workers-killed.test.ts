/**
 * SIGKILL of workers in every state that a worker can be in, by the dozen: what was theirs goes, what they were promised
 * stays, and what was claimed is built once.
 */

import { afterAll, expect } from "bun:test";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { writeContent } from "../harness/instance-content.ts";
import { DoomedWorkers } from "../harness/instance-doomed.ts";
import { needsPython, needsRoom, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { takeRoom } from "../harness/instance-room.ts";
import { lockPageBytes, Tmpfs } from "../harness/instance-tmpfs.ts";
import { roundsOf } from "../harness/rounds.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region, ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
const rounds = roundsOf("workers-killed");
const lonersPerRound = 28;
const claimersPerRound = 12;
const loners = ["creating", "filling", "sealed", "leasing", "uploading"];

afterAll(assertNothingLeft);

interface Party {
  readonly server: TestServer;
  readonly workers: DoomedWorkers;
  readonly random: Random;
  /** Sealed, and leased by those who lease. */
  readonly shared: Region;
  lastId: number;
}

function startWorker(party: Party, role: string, more: Readonly<Record<string, unknown>> = {}): number {
  party.lastId += 1;
  const { workers, random, shared, lastId: id } = party;
  workers.start({ id, role, seed: random.integer(0, 1e9), shared, ...more });
  return id;
}

/** Half of them die when they have reached what they are for, the others wherever they happen to be. */
async function killLoner(party: Party, role: string): Promise<void> {
  const { workers, random } = party;
  const id = startWorker(party, role);
  const isReached = random.isTrue(0.5);
  const delayMs = random.integer(0, isReached ? 20 : 200);
  const { pid } = await workers.untilAt(id, isReached ? role : "started");
  await Bun.sleep(delayMs);
  workers.kill(pid);
}

/** Of those who want one name some die while they wait and some while they build, until one has built it; then all die. */
async function killClaimers(party: Party, name: string): Promise<void> {
  const { workers, random } = party;
  const work = { name, byte_size: random.pick([10_000, 3 * MiB]), linger_ms: hour, build_s: 0.03 };
  const ids = Array.from({ length: claimersPerRound }, () => startWorker(party, "claiming", work));
  const waiting = ids.slice(0, 3).map(async (id) => {
    const delayMs = random.integer(0, 60);
    const { pid } = await workers.untilAt(id, "waiting");
    await Bun.sleep(delayMs);
    workers.kill(pid);
  });
  let doomed = random.integer(1, 4);
  const reports = (at: string) => workers.reports.filter((report) => report.at === at && ids.includes(report.id));
  const isReadByAll = () => {
    workers.assertNoFailure();
    for (const { pid } of reports("building")) {
      if (doomed === 0 || workers.isKilled(pid)) continue;
      doomed -= 1;
      workers.kill(pid);
    }
    const readers = new Set(reports("reading").map(({ id }) => id));
    return reports("started").every(({ id, pid }) => readers.has(id) || workers.isKilled(pid));
  };
  await Promise.all(waiting);
  await until(`every living worker reads ${name}`, () => isReadByAll() && reports("started").length === ids.length);
  for (const { pid } of reports("started")) if (!workers.isKilled(pid)) workers.kill(pid);
}

interface EventPage {
  readonly items: readonly { readonly type: string; readonly data: { readonly name?: string } }[];
  readonly next_after: string;
}

/** Where the events stand now. */
async function findPosition(api: ServerApi): Promise<string> {
  for (let query = ""; ; ) {
    const page = await api.call<EventPage>("GET", `/v1/events?limit=1000${query}`);
    if (page.items.length === 0) return page.next_after;
    query = `&after=${page.next_after}`;
  }
}

/** Seals of regions with the name, of those that happened after `after`. */
async function countBuilds(api: ServerApi, name: string, after: string): Promise<number> {
  const query = `after=${after}&types=tensord.region.sealed&limit=1000`;
  const page = await api.call<EventPage>("GET", `/v1/events?${query}`);
  expect(page.items.map(({ type }) => type)).not.toContain("tensord.stream.gap");
  return page.items.filter(({ data }) => data.name === name).length;
}

/** Ids of regions that nobody was promised. */
async function findOrphans({ server, workers, shared }: Party, built: readonly string[]): Promise<string[]> {
  await until("nothing of the dead is under way", async () => {
    const { sessions, claims, leases, regions } = await server.api.stats();
    return sessions + claims + leases + regions.creating + regions.sealing + regions.draining === 0;
  });
  const promised = new Set([shared.id, ...keptBy(workers)]);
  const regions = await checkBooks(server);
  // One that died before it could tell may have made what it would have told of.
  const isOwned = ({ id, name }: Pick<Region, "id" | "name">) =>
    promised.has(id) || /^kept/.test(name ?? "") || built.includes(name ?? "");
  return regions.filter((region) => !isOwned(region)).map(({ id }) => id);
}

function keptBy(workers: DoomedWorkers): string[] {
  return workers.reports.flatMap(({ kept }) => (kept === undefined ? [] : [String(kept)]));
}

testWith(
  needsPython,
  needsRoot,
  needsRoom(1024 * MiB),
)(
  `${rounds * (lonersPerRound + claimersPerRound)} workers are killed in all states: nothing is lost, left over or built twice`,
  async () => {
    using _room = await takeRoom();
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    using tmpfs = new Tmpfs({ sizeBytes: 2048 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await using workers = new DoomedWorkers(server.instance.socket);
    const shared = await server.api.create({ name: "shared", byte_size: 2 * MiB, persist: true });
    writeContent(shared, 1);
    const party: Party = { server, workers, random, shared: await server.api.seal(shared.id), lastId: 0 };
    const { epoch } = await server.api.stats();
    const counts = { kills: 0, orphans: 0, unaccounted_bytes: 0, lost_regions: 0, repeated_builds: 0 };
    const built: string[] = [];
    for (let round = 0; round < rounds; round++) {
      const name = `built${round}`;
      const position = await findPosition(server.api);
      const roles = Array.from({ length: lonersPerRound }, () => random.pick(loners));
      await Promise.all([killClaimers(party, name), ...roles.map((role) => killLoner(party, role))]);
      built.push(name);
      counts.orphans += (await findOrphans(party, built)).length;
      counts.repeated_builds += (await countBuilds(server.api, name, position)) - 1;
      counts.unaccounted_bytes += (hostOf(await server.api.stats()).unaccounted_bytes ?? Number.NaN) - lockPageBytes;
    }
    for (const id of [shared.id, ...keptBy(workers)]) {
      const region = await server.api.find(id);
      if (region === undefined || (await server.api.verify(id)).ok === false) counts.lost_regions += 1;
    }
    counts.kills = workers.killed;
    console.log(JSON.stringify(counts));
    expect(counts).toEqual({
      kills: rounds * (lonersPerRound + claimersPerRound),
      orphans: 0,
      unaccounted_bytes: 0,
      lost_regions: 0,
      repeated_builds: 0,
    });
    expect((await server.api.stats()).epoch, "the server lived through it").toBe(epoch);
  },
);
