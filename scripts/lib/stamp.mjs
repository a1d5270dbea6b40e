/**
 * Set-up that is done once: a stamp file holds the hash of everything the result depends on. It is removed before the
 * work and written after it, so that an interrupted set-up is done again.
 */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { withLock } from "./lock.mjs";
import { root, secondsSince } from "./process.mjs";

/**
 * @param {string[]} files paths below the root whose content matters
 * @param {string[]} facts whatever else matters: versions, the platform
 */
export function fingerprint(files, facts) {
  const hash = createHash("sha256");
  for (const fact of facts) hash.update(`${fact}\0`);
  for (const file of files) hash.update(readFileSync(join(root, file))).update("\0");
  return hash.digest("hex");
}

/** @param {Step} step which another one, that has its lock, has done along with its own work. */
export function markDone({ stamp, fingerprint: done }) {
  const path = join(root, stamp);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, done);
}

/** @param {Step} step */
export function isDone({ stamp, result, fingerprint: wanted }) {
  return existsSync(join(root, result)) && readStamp(join(root, stamp)) === wanted;
}

function readStamp(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * Does `work` unless the stamp says that it was done for the same fingerprint, and its `result` is still there. Two
 * processes do it one after the other, and the second finds it done. Progress goes to stderr: stdout belongs to the
 * program that is started afterwards.
 *
 * @typedef {{ title: string, lock: string, stamp: string, result: string, fingerprint: string }} Step
 * @param {Step & { work: (onStart: (pid: number) => void) => Promise<void> }} step
 *   `work` tells `onStart` of the children that must not outlive it
 */
export async function once(step) {
  if (isDone(step)) return;
  const onWait = (pid) => console.error(`Waiting for process ${pid}, which sets up the same checkout …`);
  await withLock(step.lock, onWait, async (onStart) => {
    if (isDone(step)) return;
    const start = performance.now();
    console.error(`${step.title} …`);
    rmSync(join(root, step.stamp), { force: true });
    await step.work(onStart);
    markDone(step);
    console.error(`${step.title}: done in ${secondsSince(start)}`);
  });
}
