/**
 * Bun for another processor than this one's, to be put into an executable: the package that the lock file has for it. What is
 * fetched is compared with the lock file's hash, since npm itself compares it with the registry's word alone.
 */

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { npmCommand } from "./server-packages.mjs";
import { once } from "./stamp.mjs";

const packages = { x64: "@oven/bun-linux-x64", arm64: "@oven/bun-linux-aarch64" };

/** Processors that the server is built for, as Node calls them. */
export const architectures = Object.keys(packages);

async function fetchRuntime({ name, version, integrity }, folder, onStart) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const [command, ...before] = npmCommand();
  const pack = [...before, "pack", `${name}@${version}`, "--prefer-offline", `--pack-destination=${folder}`];
  const { status, output } = await run(command, pack, { capture: true, onStart });
  if (status !== 0)
    throw new Failure(`Cannot fetch ${name}: npm pack ended with status ${status} and said:\n${output.trimEnd()}`);
  const archive = join(folder, readdirSync(folder)[0]);
  const hash = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
  if (hash !== integrity) throw new Failure(`Cannot use ${name}: its hash is ${hash}, want ${integrity}`);
  const unpacked = await run("tar", ["-xzf", archive, "-C", folder], { capture: true, onStart });
  if (unpacked.status !== 0) throw new Failure(`Cannot unpack ${name}: ${unpacked.output.trimEnd()}`);
  renameSync(join(folder, "package/bin/bun"), join(folder, "bun"));
  rmSync(archive);
}

/**
 * @param {string} architecture one of `architectures`
 * @returns the path of its Bun, or undefined where that is this machine's own
 */
export async function setUpRuntime(architecture) {
  const name = packages[architecture];
  if (name === undefined)
    throw new Failure(`Cannot build for ${architecture}: want one of ${architectures.join(", ")}.`);
  if (architecture === process.arch) return undefined;
  const { version, integrity } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages[
    `node_modules/${name}`
  ];
  const folder = `.tmp/runtime/${architecture}`;
  await once({
    title: `Fetching Bun for ${architecture} (52 MB)`,
    lock: `runtime-${architecture}`,
    stamp: `.tmp/runtime/${architecture}-set-up`,
    result: `${folder}/bun`,
    fingerprint: integrity,
    work: (onStart) => fetchRuntime({ name, version, integrity }, join(root, folder), onStart),
  });
  return join(root, folder, "bun");
}
