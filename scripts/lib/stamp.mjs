/**
 * Set-up that is done once: a stamp file holds the hash of everything the result depends on. It is removed before the
 * work and written after it, so that an interrupted set-up is done again.
 */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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

function readStamp(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * Does `work` unless the stamp says that it was done for the same fingerprint. Two processes do it one after the other,
 * and the second finds it done. Progress goes to stderr: stdout belongs to the program that is started afterwards.
 *
 * @param {{ title: string, lock: string, stamp: string, fingerprint: string, work: () => Promise<void> }} step
 */
export async function once({ title, lock, stamp, fingerprint: wanted, work }) {
  const path = join(root, stamp);
  if (readStamp(path) === wanted) return;
  const onWait = (pid) => console.error(`Waiting for process ${pid}, which sets up the same checkout …`);
  await withLock(lock, onWait, async () => {
    if (readStamp(path) === wanted) return;
    const start = performance.now();
    console.error(`${title} …`);
    rmSync(path, { force: true });
    await work();
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, wanted);
    console.error(`${title}: done in ${secondsSince(start)}`);
  });
}
