/** Which commit this checkout is at, for what is built from it. */

import { realpathSync } from "node:fs";
import { root, run } from "./process.mjs";

async function git(...args) {
  // The clone may belong to another user than the one who builds, as in containers.
  const { status, output } = await run("git", ["-c", "safe.directory=*", "-C", root, ...args], { capture: true });
  return status === 0 ? output.trim() : undefined;
}

/**
 * @returns {Promise<{ id: string, isClean: boolean, seconds: number } | undefined>} `seconds` since the epoch, of the commit;
 *   undefined where this folder is no checkout of its own, as one that was unpacked below another
 */
export async function readCommit() {
  const top = await git("rev-parse", "--show-toplevel");
  if (top === undefined || realpathSync(top) !== realpathSync(root)) return undefined;
  const shown = await git("log", "-1", "--format=%H %ct");
  const changed = await git("status", "--porcelain");
  if (shown === undefined || changed === undefined) return undefined;
  const [id, seconds] = shown.split(" ");
  return { id, isClean: changed === "", seconds: Number(seconds) };
}

/** The commit in a version: short, and said to be changed where files are that it does not have. */
export function toCommitText(commit) {
  if (commit === undefined) return undefined;
  return `${commit.id.slice(0, 12)}${commit.isClean ? "" : ", changed"}`;
}
