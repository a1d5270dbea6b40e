/**
 * A release: every artefact from one commit, built twice in two folders with the same bytes, and each accepted as it is installed. Nothing
 * is published.
 */

import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { readCommit } from "../commit.mjs";
import { buildExecutable } from "../executable.mjs";
import { setUpNodeClient } from "../node-client.mjs";
import { Failure, root, secondsSince } from "../process.mjs";
import { setUpPython } from "../python-packages.mjs";
import { architectures } from "../runtime.mjs";
import { setUpPackages } from "../server-packages.mjs";
import { acceptAll } from "./accept-all.mjs";
import { compareWithAnother } from "./again.mjs";
import { releaseFolder, releaseSeconds } from "./facts.mjs";
import { buildFile } from "./file.mjs";
import { buildImage } from "./image.mjs";
import { buildClientPackage, buildMainPackage, buildPlatformPackage } from "./npm.mjs";
import { hashFile } from "./stage.mjs";
import { buildClientWheel, buildServerWheel } from "./wheel.mjs";

/** How each artefact of one processor is made, and those that are for all. */
const builders = {
  file: buildFile,
  wheel: buildServerWheel,
  npm: buildPlatformPackage,
  image: buildImage,
};
const commonBuilders = { wheel: buildClientWheel, npm: buildMainPackage, client: buildClientPackage };

const checksums = "SHA256SUMS";

async function buildAll(chosen) {
  rmSync(join(root, releaseFolder), { recursive: true, force: true });
  mkdirSync(join(root, releaseFolder), { recursive: true });
  const seconds = await releaseSeconds();
  const made = [];
  const keep = async (build, ...args) => {
    const start = performance.now();
    const path = await build(...args);
    const mebibytes = (statSync(join(root, path)).size / 2 ** 20).toFixed(1);
    console.log(`${basename(path)}: ${mebibytes} MiB in ${secondsSince(start)}`);
    made.push(path);
  };
  for (const architecture of chosen) {
    await buildExecutable(architecture);
    for (const build of Object.values(builders)) await keep(build, architecture, seconds);
  }
  for (const build of Object.values(commonBuilders)) await keep(build, seconds);
  const lines = [];
  for (const path of made.toSorted()) lines.push(`${await hashFile(join(root, path))}  ${basename(path)}\n`);
  // As sha256sum writes and checks it.
  writeFileSync(join(root, releaseFolder, checksums), lines.join(""));
}

/**
 * @param {string[]} args `--arch x64` builds for that processor alone; `--draft` takes the files as they are, once; `--build-only` accepts
 *   nothing
 * @returns the status to exit with
 */
export async function release(args) {
  const { values } = parseArgs({
    args,
    options: {
      arch: { type: "string", multiple: true, default: architectures },
      draft: { type: "boolean", default: false },
      "build-only": { type: "boolean", default: false },
    },
  });
  const commit = await readCommit();
  if (!values.draft && !commit?.isClean)
    throw new Failure(
      "Cannot release: there are files here that no commit has, and an executable says which commit it is of. Commit or stash them, or " +
        "try it out with `npm run release -- --draft`.",
    );
  await setUpPackages();
  await setUpPython();
  await setUpNodeClient();
  await buildAll(values.arch);
  if (values["build-only"]) return 0;
  if (!values.draft) await compareWithAnother(join(releaseFolder, checksums), values.arch);
  await acceptAll(values.arch);
  console.log(`${releaseFolder}: built and accepted`);
  return 0;
}
