/** The soak's own process, in Bun: server, load, samples, and at the end the counts that decide. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostOf } from "../../src/server/cli/pools.ts";
import { DoomedWorkers } from "../../tests/harness/instance-doomed.ts";
import { Random } from "../../tests/harness/instance-random.ts";
import { lockPageBytes, Tmpfs } from "../../tests/harness/instance-tmpfs.ts";
import { TestServer } from "../../tests/harness/server.ts";
import type { Region, ServerApi } from "../../tests/harness/server-api.ts";
import { until } from "../../tests/harness/server-wait.ts";
import { readMachine } from "../lib/machine.ts";
import { resultsDirectory } from "../lib/places.ts";
import { SoakFollower } from "./follower.ts";
import { type Holdings, judge, readProcess, type Sample, type Tally, type Verdict } from "./judge.ts";
import { killWorkers } from "./killing.ts";
import { plot } from "./plot.ts";
import { runUser } from "./users.ts";

const MiB = 2 ** 20;
const poolBytes = 512 * MiB;
const sampleMs = 1000;
const quietDeadlineMs = 60_000;
/** Who is there at once. */
const workersAtOnce = 12;
const usersAtOnce = 6;

const seconds = Number(process.argv[2]) * 60;
const stopping = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => stopping.abort());

process.exitCode = (await soak()) ? 0 : 1;

/** @returns whether nothing leaked */
async function soak(): Promise<boolean> {
  const random = new Random();
  console.log(`seed ${random.seed} (TEST_SEED repeats its choices), ${seconds} s`);
  // Where nobody else is, every byte can be accounted for; that takes a mount, and so root.
  using tmpfs = process.getuid?.() === 0 ? new Tmpfs({ sizeBytes: 2 * poolBytes }) : undefined;
  const env = { TENSORD_LOG_LEVEL: "warn", TENSORD_MEMORY_LIMIT_BYTES: String(poolBytes) };
  await using server = await new TestServer({ env, ...(tmpfs && { shmDirectory: tmpfs.path }) }).start();
  await warmUp(server.api);
  const before = readProcess(server.pid);
  const ownSocketsBefore = readProcess(process.pid).sockets;
  const samples: Sample[] = [];
  const tally: Tally = { kills: 0, lostRegions: 0, requests: 0, unexpected: [] };
  const follower = new SoakFollower(server.instance.socket);
  await follower.opened;
  const shared = await makeShared(server.api);
  {
    await using workers = new DoomedWorkers(server.instance.socket);
    const load = [
      ...Array.from({ length: workersAtOnce }, () =>
        killWorkers({ server, workers, random, shared, tally, signal: stopping.signal }),
      ),
      ...Array.from({ length: usersAtOnce }, () => runUser({ server, random, tally, signal: stopping.signal })),
    ];
    await sampleAll(server, follower, samples, before);
    stopping.abort();
    await Promise.all(load);
  }
  // Of a worker that died before it could tell of it, nobody knew what outlives it.
  for (const { id, owner } of await server.api.list()) if (owner.kind === "persist") await server.api.delete(id);
  const left = await becomeQuiet(server.api);
  await follower.untilQuiet();
  const host = hostOf(await server.api.stats());
  const result = judge({
    before,
    after: readProcess(server.pid),
    // Each connection that we keep is one of the server's descriptors, and no leak of it.
    connections: readProcess(process.pid).sockets - ownSocketsBefore,
    samples,
    tally,
    left,
    heard: follower,
    unaccountedBytes: tmpfs === undefined ? null : (host.unaccounted_bytes ?? Number.NaN) - lockPageBytes,
  });
  follower.close();
  write(random.seed, result, samples);
  return result.isClean;
}

/** What the server makes once, at the first need for it, is no leak: a large region needs the Workers. */
async function warmUp(api: ServerApi): Promise<void> {
  const { id } = await api.create({ byte_size: 32 * MiB, ttl_ms: 60_000 });
  await api.delete(id);
}

async function makeShared(api: ServerApi): Promise<Region> {
  const { id } = await api.create({ name: "shared", byte_size: MiB, persist: true });
  return await api.seal(id);
}

/** Takes a sample a second until the time is over, or somebody stops it. */
async function sampleAll(server: TestServer, follower: SoakFollower, samples: Sample[], before: Holdings) {
  const begin = performance.now();
  for (let count = 1; !stopping.signal.aborted && performance.now() - begin < seconds * 1000; count++) {
    await Bun.sleep(Math.max(0, begin + count * sampleMs - performance.now()));
    const asked = performance.now();
    const stats = await server.api.stats();
    const { regions, sessions } = stats;
    const answerMs = performance.now() - asked;
    const second = Math.round((performance.now() - begin) / 1000);
    const standing = regions.open + regions.sealed;
    samples.push({
      second,
      ...readProcess(server.pid),
      sessions,
      regions: standing,
      usedBytes: hostOf(stats).used_bytes,
      answerMs,
      events: follower.count,
    });
    if (count % 30 === 0)
      console.log(`${second} s: ${JSON.stringify(samples.at(-1))}, before ${JSON.stringify(before)}`);
  }
}

/** Waits until whatever ends by itself has ended. @returns what has not */
async function becomeQuiet(api: ServerApi): Promise<Record<string, number>> {
  const read = async () => {
    const { sessions, claims, leases, regions } = await api.stats();
    return { sessions, claims, leases, regions: Object.values(regions).reduce((sum, count) => sum + count, 0) };
  };
  const isQuiet = async () => Object.values(await read()).every((count) => count === 0);
  await until("all has ended", isQuiet, quietDeadlineMs).catch((error) => console.error(`${error.message}`));
  return await read();
}

function write(seed: number, result: Verdict, samples: readonly Sample[]): void {
  mkdirSync(resultsDirectory, { recursive: true });
  const at = new Date().toISOString();
  const path = join(resultsDirectory, `soak-${at.replaceAll(/[:.]/g, "-")}`);
  writeFileSync(
    `${path}.json`,
    `${JSON.stringify({ at, seed, machine: readMachine(), ...result, samples }, null, 1)}\n`,
  );
  writeFileSync(`${path}.svg`, plot(samples));
  for (const line of result.lines) console.log(line);
  console.log(`wrote  ${path}.json and .svg`);
  console.log(result.isClean ? "nothing leaked" : "LEAKED: see the lines marked so");
}
