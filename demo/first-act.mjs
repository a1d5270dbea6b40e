/** The first act: one copy of the weights for four processes, byte for byte, whoever is killed. */

import { readFileSync } from "node:fs";
import { until } from "./cast.mjs";
import { claim, line, megabytes, milliseconds, step, table } from "./telling.mjs";

/** Should we be killed, the weights outlive us for no longer than this once a server runs on the instance again. */
const ttlSeconds = 600;

/** @returns what there is to know of the weights: `file`, `byte_size`, `tensors`, `region` (its descriptor) */
export async function tellFirstAct(cast, listener, name) {
  const published = await publish(cast, listener, name);
  const alone = await loadAlone(cast, published);
  const workers = await attachWorkers(cast, published, alone);
  await killWorker(cast, published, workers);
  await killServer(cast, listener, published, workers);
  await stopWorkers(published, workers);
  return published;
}

async function publish(cast, listener, name) {
  step("One process loads the weights of a trained model and puts them into one region");
  const publisher = cast.python("publish.py", name, String(ttlSeconds));
  const said = await publisher.hear();
  const status = await publisher.end();
  await listener.heard("tensord.region.sealed");
  const { region } = said;
  line(`file      ${said.file}`);
  line(
    `content   ${said.parameters.toLocaleString("en")} parameters in ${said.tensors} tensors, ${megabytes(said.byte_size)}`,
  );
  line(`region    ${region.storage.path}, inode ${region.storage.ino}`);
  line(
    `time      load ${milliseconds(said.load_ms)}, allocate and copy ${milliseconds(said.create_ms)}, ` +
      `seal with checksum ${milliseconds(said.seal_ms)}`,
  );
  claim(`it is sealed, with checksum ${region.checksum?.value} (${region.checksum?.algorithm})`, isSealed(region));
  const now = await cast.find(region.id);
  claim(
    "its maker has ended and nobody maps it, and it is still there: it has an owner (a TTL)",
    status === 0 && now.in_use === false,
  );
  return said;
}

async function loadAlone(cast, published) {
  step("For comparison, a process that loads the file as everybody does (safetensors.numpy.load_file)");
  const reader = cast.python("load_alone.py");
  const said = await reader.hear();
  await reader.end();
  const grown = said.after - said.before;
  line(
    `private memory ${megabytes(said.before)} before, ${megabytes(said.after)} after, in ${milliseconds(said.ready_ms)}`,
  );
  claim(`it holds a copy of its own: ${megabytes(grown)}`, grown > 0.9 * published.byte_size);
  return { ...said, grown };
}

async function attachWorkers(cast, published, alone) {
  step("Three more processes attach by name, and compare every tensor with the file on disk");
  const workers = ["A", "B", "C"].map((label) => ({
    label,
    process: cast.python("worker.py", published.region.name),
  }));
  for (const worker of workers) Object.assign(worker, await worker.process.hear());
  // Only when all of them have touched everything: the kernel calls a page private that one process has mapped so far.
  for (const worker of workers) Object.assign(worker, await worker.process.ask("measure"));
  const toRow = (who, { before, after, ready_ms, matching, tensors }) => [
    who,
    milliseconds(ready_ms),
    `${matching} of ${tensors}`,
    megabytes(before),
    megabytes(after),
    megabytes(after - before),
  ];
  table(
    ["", "ready in", "tensors equal", "private before", "after touching all", "grown by"],
    [
      ...workers.map((worker) => toRow(`worker ${worker.label}, pid ${worker.process.pid}`, worker)),
      toRow("a load of its own", alone),
    ],
  );
  claim(
    "every worker sees every tensor of the file, byte for byte",
    workers.every(({ matching }) => matching === published.tensors),
  );
  const grown = workers.map(({ before, after }) => after - before);
  const most = Math.max(...grown);
  claim(
    `no worker holds a copy: at most ${megabytes(most)} each instead of ${megabytes(alone.grown)}`,
    most < 0.05 * alone.grown,
  );
  return workers;
}

async function killWorker(cast, published, workers) {
  step("Worker C is killed (SIGKILL). It cannot say goodbye");
  const { storage } = published.region;
  const before = countLeases(storage);
  const victim = workers.pop();
  const outcome = await victim.process.kill();
  const after = await until("its lease was gone", () => countLeases(storage) === before - 1 && countLeases(storage));
  line(
    `it ended by ${outcome}; no heartbeat, no clean-up: its lease was a kernel lock that lives as long as the mapping`,
  );
  claim(
    `leases on the region, as the kernel lists them (/proc/locks): ${before} before, ${after} now`,
    before === 3 && after === 2,
  );
  const { in_use } = await cast.find(published.region.id);
  claim("the region is there, and the server knows that the others still use it", in_use);
}

async function killServer(cast, listener, published, workers) {
  step("The server is killed (SIGKILL), and started again");
  const before = await reports(workers);
  await cast.endServer("SIGKILL");
  const killed = performance.now();
  line(`pid ${cast.serverPid} is dead; the workers go on comparing`);
  // Long enough that every worker finishes whole rounds without a server.
  await until("every worker had compared everything again", async () => {
    const now = await reports(workers);
    return now.every(({ rounds }, index) => rounds >= before[index].rounds + 3);
  });
  const alone = await reports(workers);
  claim(
    `without a server: ${toRounds(alone, before)} more rounds over all tensors, ${toMismatches(alone)} mismatches`,
    alone.every(({ mismatches }) => mismatches === 0),
  );
  const begin = performance.now();
  await cast.startServer();
  line(
    `started again: pid ${cast.serverPid}, ready after ${milliseconds(performance.now() - begin)}; ` +
      `the machine was without a server for ${milliseconds(performance.now() - killed)}`,
  );
  const { region } = published;
  const now = await cast.find(region.id);
  const { storage } = now;
  const isSame =
    storage.ino === region.storage.ino && storage.dev === region.storage.dev && storage.path === region.storage.path;
  claim(
    `the region is back: same id, name, path and inode ${storage.ino}`,
    isSame && now.name === region.name && isSealed(now),
  );
  const { body: verified } = await cast.call("POST", `/v1/regions/${region.id}/verify`);
  claim(`its checksum, computed anew, is the one of its seal: ${verified.actual}`, verified.ok === true);
  await listener.heardGap(region.id);
  const newcomer = { label: "D", process: cast.python("worker.py", region.name) };
  Object.assign(newcomer, await newcomer.process.hear());
  workers.push(newcomer);
  line(`worker D starts in C's place: ready in ${milliseconds(newcomer.ready_ms)}`);
  claim(
    `it finds ${newcomer.matching} of ${published.tensors} tensors equal to the file`,
    newcomer.matching === published.tensors,
  );
}

async function stopWorkers(published, workers) {
  const totals = [];
  for (const { process } of workers) {
    totals.push(await process.ask("stop"));
    await process.end();
  }
  const compared = totals.reduce((sum, { rounds }) => sum + rounds, 0) * published.byte_size;
  claim(
    `no worker has noticed anything: ${toRounds(totals)} rounds, ${(compared / 1e9).toFixed(1)} GB compared, ` +
      `${toMismatches(totals)} mismatches, and each ended with status 0`,
    workers.every(({ process }) => process.outcome === 0) && totals.every(({ mismatches }) => mismatches === 0),
  );
}

const isSealed = ({ state, checksum }) => state === "sealed" && checksum !== null;

/** How each worker's comparing went so far. */
const reports = (workers) => Promise.all(workers.map(({ process }) => process.ask("report")));

const toRounds = (now, before = now.map(() => ({ rounds: 0 }))) =>
  now.map(({ rounds }, index) => rounds - before[index].rounds).join(" + ");

const toMismatches = (totals) => totals.reduce((sum, { mismatches }) => sum + mismatches, 0);

/** Open-file-description locks on the region's file, one a mapping (proc(5), `/proc/locks`: major:minor:inode, in hex and decimal). */
function countLeases({ dev, ino }) {
  const number = BigInt(dev);
  const major = (number >> 8n) & 0xfffn;
  const minor = (number & 0xffn) | ((number >> 12n) & 0xfff00n);
  const hex = (value) => value.toString(16).padStart(2, "0");
  const file = ` ${hex(major)}:${hex(minor)}:${ino} `;
  const locks = readFileSync("/proc/locks", "utf8").split("\n");
  return locks.filter((text) => text.includes("OFDLCK") && text.includes(file)).length;
}
