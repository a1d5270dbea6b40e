/** The demo itself: real weights, one copy, three workers, a killed worker, a killed server, and an orderly end. */

import { readFileSync, statfsSync } from "node:fs";
import { Failure, secondsSince } from "../scripts/lib/process.mjs";
import { Cast, until } from "./cast.mjs";
import { setUpDemo } from "./set-up.mjs";
import { claim, conclude, line, megabytes, milliseconds, step, table, title } from "./telling.mjs";

const MiB = 1024 * 1024;
const name = "all-MiniLM-L6-v2";
/** The weights, the server's own store, and the tenth that it leaves free. */
const neededBytes = 128 * MiB;
/** Should we be killed, the weights outlive us for no longer than this once a server runs on the instance again. */
const ttlSeconds = 600;

/** Runs the demo. @returns the status to exit with */
export async function tellStory() {
  await setUpDemo();
  const shmDirectory = process.env.TENSORD_SHM_DIR || "/dev/shm";
  needRoom(shmDirectory);
  const cast = new Cast(shmDirectory);
  const stop = () => void cast.end();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, stop);
  const begin = performance.now();
  try {
    title("tensord: one copy of every tensor per machine");
    tellLeftOvers(cast);
    await startServer(cast);
    const published = await publish(cast);
    const alone = await loadAlone(cast, published);
    const workers = await attachWorkers(cast, published, alone);
    await killWorker(cast, published, workers);
    await killServer(cast, published, workers);
    await deleteWhileMapped(cast, published, workers);
    await leaveNothing(cast);
  } finally {
    await cast.end();
  }
  return conclude(secondsSince(begin));
}

function needRoom(shmDirectory) {
  const { bavail, blocks, bsize } = statfsSync(shmDirectory);
  if (bavail * bsize >= neededBytes) return;
  const mib = (count) => `${Math.floor((count * bsize) / MiB)} MiB`;
  throw new Failure(
    `Cannot run the demo: ${mib(bavail)} of the ${mib(blocks)} of ${shmDirectory} are free, want ${neededBytes / MiB} MiB, since ` +
      "a real model's weights go there. Make room there (`ls -l`), enlarge it (`mount -o remount,size=1G /dev/shm` as " +
      "root, `docker run --shm-size=1g`), or name another tmpfs in TENSORD_SHM_DIR.",
  );
}

/** A demo that was itself killed could not clean up. Whether another one still runs there is not ours to guess. */
function tellLeftOvers(cast) {
  for (const instance of cast.otherDemos()) {
    line(
      `note: an earlier demo left its instance, or still runs: node scripts/tensord.mjs purge --instance ${instance}`,
    );
  }
}

async function startServer(cast) {
  step("A server starts, on a Unix socket alone");
  const begin = performance.now();
  await cast.startServer();
  line(`pid ${cast.serverPid}, ready after ${milliseconds(performance.now() - begin)}: ${cast.socket}`);
}

async function publish(cast) {
  step("One process loads the weights of a trained model and puts them into one region");
  const publisher = cast.python("publish.py", name, String(ttlSeconds));
  const said = await publisher.hear();
  const status = await publisher.end();
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
  const now = await findRegion(cast, region.id);
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
  const workers = ["A", "B", "C"].map((label) => ({ label, process: cast.python("worker.py", name) }));
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
  const { in_use } = await findRegion(cast, published.region.id);
  claim("the region is there, and the server knows that the others still use it", in_use);
}

async function killServer(cast, published, workers) {
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
  const now = await findRegion(cast, region.id);
  const { storage } = now;
  const isSame =
    storage.ino === region.storage.ino && storage.dev === region.storage.dev && storage.path === region.storage.path;
  claim(
    `the region is back: same id, name, path and inode ${storage.ino}`,
    isSame && now.name === name && isSealed(now),
  );
  const { body: verified } = await cast.call("POST", `/v1/regions/${region.id}/verify`);
  claim(`its checksum, computed anew, is the one of its seal: ${verified.actual}`, verified.ok === true);
  const newcomer = { label: "D", process: cast.python("worker.py", name) };
  Object.assign(newcomer, await newcomer.process.hear());
  workers.push(newcomer);
  line(`worker D starts in C's place: ready in ${milliseconds(newcomer.ready_ms)}`);
  claim(
    `it finds ${newcomer.matching} of ${published.tensors} tensors equal to the file`,
    newcomer.matching === published.tensors,
  );
  const after = await reports(workers);
  claim(
    `no worker has noticed anything: ${toMismatches(after)} mismatches, none ended`,
    after.every(({ mismatches }) => mismatches === 0),
  );
}

async function deleteWhileMapped(cast, published, workers) {
  step("The region is deleted while three workers use it");
  const { id, storage } = published.region;
  const { body: deletion } = await cast.call("DELETE", `/v1/regions/${id}`);
  claim(
    `the server answers "${deletion.state}": its name is free at once, its bytes go with the last worker`,
    deletion.state === "draining",
  );
  const before = await reports(workers);
  await until("every worker had compared everything again", async () => {
    const now = await reports(workers);
    return now.every(({ rounds }, index) => rounds >= before[index].rounds + 2);
  });
  const totals = [];
  for (const { process } of workers) {
    totals.push(await process.ask("stop"));
    await process.end();
  }
  const compared = totals.reduce((sum, { rounds }) => sum + rounds, 0) * published.byte_size;
  claim(
    `the workers stop by themselves: ${toRounds(totals)} rounds, ${(compared / 1e9).toFixed(1)} GB compared, ${toMismatches(totals)} mismatches`,
    workers.every(({ process }) => process.outcome === 0) && totals.every(({ mismatches }) => mismatches === 0),
  );
  const begin = performance.now();
  await until("the region was freed", async () => (await cast.call("GET", `/v1/regions/${id}`)).status === 404);
  const { body: stats } = await cast.call("GET", "/v1/stats");
  const isFree = stats.bytes.used === 0 && stats.bytes.draining === 0;
  claim(
    `${milliseconds(performance.now() - begin)} after the last one, its ${megabytes(storage.byte_size)} are free`,
    isFree,
  );
}

async function leaveNothing(cast) {
  step("The server is stopped (SIGTERM), and its instance purged");
  const outcome = await cast.endServer("SIGTERM");
  claim("the server ends by itself, with status 0", outcome === 0);
  line(cast.purge());
  claim(`nothing of the instance is left in ${cast.shmDirectory}`, cast.names().length === 0);
}

async function findRegion(cast, id) {
  const { status, body } = await cast.call("GET", `/v1/regions/${id}`);
  if (status !== 200) throw new Failure(`The server does not know ${id}: ${body.detail}`);
  return body;
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
