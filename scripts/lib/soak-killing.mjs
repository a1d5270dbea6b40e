/** One place for a worker of the soak: a worker lives there for a while, is killed in whatever it does, and is replaced. */

import { until } from "../../tests/harness/server-wait.ts";

const roles = ["creating", "filling", "sealed", "leasing", "uploading", "claiming", "claiming"];
const longestLifeMs = 1500;
let lastId = 0;

export async function killWorkers({ server, workers, random, shared, tally, signal }) {
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
    await settle({ server, workers, id, tally });
  }
}

function find(workers, id, at) {
  return until(
    `worker ${id} is ${at}`,
    () => workers.reports.find((report) => report.id === id && report.at === at),
    60_000,
  );
}

/** Holds what the dead worker told against what is there, and forgets its reports. */
async function settle({ server, workers, id, tally }) {
  const own = workers.forget(id);
  for (const { error } of own.filter(({ at }) => at === "failed")) tally.unexpected.push(error);
  for (const { kept } of own.filter(({ kept }) => kept !== undefined)) {
    const region = await server.api.find(kept);
    if (region === undefined || (await server.api.verify(kept)).ok !== true) tally.lostRegions += 1;
    else await server.api.delete(kept);
  }
}
