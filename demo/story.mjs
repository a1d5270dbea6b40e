/** The demo itself: real weights, one copy, three acts with all kinds of processes, and an orderly end. */

import { statfsSync } from "node:fs";
import { Failure, secondsSince } from "../scripts/lib/process.mjs";
import { Cast } from "./cast.mjs";
import { tellFirstAct } from "./first-act.mjs";
import { Listener } from "./listener.mjs";
import { tellSecondAct } from "./second-act.mjs";
import { setUpDemo } from "./set-up.mjs";
import { claim, conclude, line, milliseconds, step, title } from "./telling.mjs";
import { tellThirdAct } from "./third-act.mjs";

const MiB = 1024 * 1024;
const name = "all-MiniLM-L6-v2";
/** The weights, the server's own store, and the tenth that it leaves free. */
const neededBytes = 128 * MiB;

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
    const listener = await startServer(cast);
    const published = await tellFirstAct(cast, listener, name);
    await tellSecondAct(cast, listener, published);
    await listener.conclude(published.region.id, ["allocated", "sealed", "draining", "deleted"]);
    await tellThirdAct(cast);
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
  const listener = new Listener(cast.python("follow.py"));
  await listener.start();
  return listener;
}

async function leaveNothing(cast) {
  step("The server is stopped (SIGTERM), and its instance purged");
  const outcome = await cast.endServer("SIGTERM");
  claim("the server ends by itself, with status 0", outcome === 0);
  line(cast.purge());
  claim(`nothing of the instance is left in ${cast.shmDirectory}`, cast.names().length === 0);
}
