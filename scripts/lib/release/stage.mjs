/** Folders in which an artefact is put together, and archives that come out the same each time. */

import { createHash } from "node:crypto";
import { chmodSync, createReadStream, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Failure, root, run } from "../process.mjs";
import { stagingFolder } from "./facts.mjs";

/** An empty folder below the staging folder. @returns its path */
export function makeStage(name) {
  const folder = join(root, stagingFolder, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Writes a file that the umask has no say in. */
export function place(path, content, mode = 0o644) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  chmodSync(path, mode);
}

/** Runs a tool, whose end is ours. @returns what it said */
export async function need(what, command, args, options = {}) {
  const { status, output } = await run(command, args, { capture: true, ...options });
  if (status === 0) return output;
  throw new Failure(`Cannot ${what}: ${command} ended with status ${status} and said:\n${output.trimEnd()}`);
}

/** Modes that no umask had a say in: a program is for everybody to run, and everything for everybody to read. */
function setModes(folder) {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) setModes(path);
    else if (entry.isFile()) chmodSync(path, statSync(path).mode & 0o100 ? 0o755 : 0o644);
  }
}

/**
 * Packs what is in `folder` into `archive`: in the order of names, root's, with one time. GNU tar's format of 1988, which has no room for
 * anything else.
 */
export async function packTar(folder, archive, seconds) {
  setModes(folder);
  const same = ["--sort=name", `--mtime=@${seconds}`, "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"];
  await need(`pack ${archive}`, "tar", [...same, "-C", folder, "-cf", archive, ...readdirSync(folder).sort()]);
}

/** The sha256 of a file, in hexadecimal. */
export async function hashFile(path) {
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(path)) hash.update(bytes);
  return hash.digest("hex");
}
