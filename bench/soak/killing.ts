/** One place for a worker of the soak: a worker lives there for a while, is killed in whatever it does, and is replaced. */

import type { DoomedWorkers, Report } from "../../tests/harness/instance-doomed.ts";
import type { Random } from "../../tests/harness/instance-random.ts";
import type { TestServer } from "../../tests/harness/server.ts";
import type { Region } from "../../tests/harness/server-api.ts";
import { until } from "../../tests/harness/server-wait.ts";
import type { Tally } from "./judge.ts";

interface Place {
  readonly server: TestServer;
  readonly workers: DoomedWorkers;
  readonly random: Random;
  /** A region that some of them map. */
  readonly shared: Region;
  readonly tally: Tally;
  readonly signal: AbortSignal;
}

const roles = ["creating", "filling", "sealed", "leasing", "uploading", "claiming", "claiming"];
const longestLifeMs = 1500;
let lastId = 0;

/** Goes on until `signal` aborts. */
export async function killWorkers(place: Place): Promise<void> {
  const { workers, random, shared, tally, signal } = place;
  while (!signal.aborted) {
    const role = random.pick(roles);
    lastId += 1;
    const id = lastId;
    // Claims of one name come together: names change slowly enough for several workers to want the same.
    const name = `claimed${Math.floor(id / 8)}`;
    const more = { name, byte_size: random.pick([10_000, 3 * 2 ** 20]), linger_ms: 100, build_s: 0.02 };
    workers.start({ id, role, seed: random.integer(0, 1e9), shared, ...more });
    const { pid } = await find(workers, id, "started");
    await Bun.sleep(random.integer(0, longestLifeMs));
    workers.kill(pid);
    tally.kills += 1;
    await settle(place, id);
  }
}

function find(workers: DoomedWorkers, id: number, at: string): Promise<Report> {
  return until(
    `worker ${id} is ${at}`,
    () => workers.reports.find((report) => report.id === id && report.at === at),
    60_000,
  );
}

/** Holds what the dead worker told against what is there, and forgets its reports. */
async function settle({ server, workers, tally }: Place, id: number): Promise<void> {
  const own = workers.forget(id);
  for (const { error } of own.filter(({ at }) => at === "failed")) tally.unexpected.push(String(error));
  for (const { kept } of own) {
    if (typeof kept !== "string") continue;
    const region = await server.api.find(kept);
    if (region === undefined || (await server.api.verify(kept)).ok !== true) tally.lostRegions += 1;
    else await server.api.delete(kept);
  }
}
