/**
 * A lock between processes of this repository: a directory that holds one file named after its owner, with the owner's
 * children in it. Every step is one rename, so that of two processes exactly one wins, also when both find the lock of a
 * dead one.
 */

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { root, throwIfStopped } from "./process.mjs";

const pollMs = 200;

/** A process by number and start time, since numbers are used again. Outside Linux the number alone has to do. */
function processName(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 22 is the start time (proc(5)); the name in field 2 may hold spaces and ends at the last parenthesis.
    return `${pid}-${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return `${pid}`;
  }
}

function isAlive(owner) {
  const pid = Number(owner.split("-")[0]);
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code === "ESRCH") return false;
  }
  return processName(pid) === owner;
}

/** Tries a rename, and says whether it was done. `codes` are the errors that mean somebody else was first. */
function renamed(from, to, codes) {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (codes.includes(error.code)) return false;
    throw error;
  }
}

/** Takes the lock if it is free or its owner is dead; else returns the living owner. */
function tryTake(lock, me) {
  const mine = `${lock}.${me}`;
  mkdirSync(mine, { recursive: true });
  writeFileSync(join(mine, me), "");
  // A directory may be renamed over an empty one only: that is a lock being given back.
  if (renamed(mine, lock, ["ENOTEMPTY", "EEXIST"])) return undefined;
  rmSync(mine, { recursive: true });
  const [owner] = readOwners(lock);
  if (owner === undefined) return "nobody";
  if (isAlive(owner)) return owner;
  if (!renamed(join(lock, owner), join(lock, me), ["ENOENT"])) return "nobody";
  endChildren(join(lock, me));
  return undefined;
}

/** Is there still a process of the group that `leader` was made for? Its number is not used again while there is. */
function isGroupAlive(leader) {
  const pid = Number(leader.split("-")[0]);
  try {
    process.kill(-pid, 0);
  } catch (error) {
    if (error.code === "ESRCH") return false;
  }
  return !existsSync(`/proc/${pid}`) || processName(pid) === leader;
}

/** An owner that was killed has left its children at work, which would write into ours. */
function endChildren(path) {
  const leaders = readFileSync(path, "utf8").split("\n").filter(Boolean);
  for (const leader of leaders.filter(isGroupAlive)) process.kill(-Number(leader.split("-")[0]), "SIGKILL");
  writeFileSync(path, "");
}

function readOwners(lock) {
  try {
    return readdirSync(lock);
  } catch (error) {
    if (error.code === "ENOENT") return [];
    throw error;
  }
}

function giveBack(lock, me) {
  rmSync(join(lock, me), { force: true });
  try {
    rmdirSync(lock);
  } catch {
    // The next owner has taken the empty directory.
  }
}

/**
 * Runs `body` while no other process of this checkout runs one under the same name. Waits as long as the other lives.
 *
 * @template T
 * @param {string} name
 * @param {(owner: string) => void} onWait called once, with the number of the process that is waited for
 * @param {(onStart: (pid: number) => void) => Promise<T>} body calls `onStart` for each child that leads a group
 */
export async function withLock(name, onWait, body) {
  mkdirSync(join(root, ".tmp"), { recursive: true });
  const lock = join(root, ".tmp", `${name}.lock`);
  const me = processName(process.pid);
  let told = false;
  for (let owner = tryTake(lock, me); owner !== undefined; owner = tryTake(lock, me)) {
    throwIfStopped();
    if (owner === "nobody") continue;
    if (!told) onWait(owner.split("-")[0]);
    told = true;
    await sleep(pollMs);
  }
  try {
    return await body((pid) => appendFileSync(join(lock, me), `${processName(pid)}\n`));
  } finally {
    giveBack(lock, me);
  }
}
