/** What all artefacts of a release have in common: version, time, names of processors, and where they are written. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readCommit } from "../commit.mjs";
import { root } from "../process.mjs";

/** Where the artefacts lie, below the root. */
export const releaseFolder = "dist/release";

/** Where they are put together. */
export const stagingFolder = ".tmp/release";

/** A processor as each kind of artefact calls it; the key is Node's and npm's word. */
export const processors = {
  x64: { wheel: "manylinux_2_28_x86_64", image: "amd64", debian: "amd64", qemu: "qemu-x86_64-static" },
  arm64: { wheel: "manylinux_2_28_aarch64", image: "arm64", debian: "arm64", qemu: "qemu-aarch64-static" },
};

/** The licences of the executable: ours, those of the packages and of Bun, and those of what Bun links. */
export const licenceExpression =
  "Apache-2.0 AND MIT AND BSD-2-Clause AND BSD-3-Clause AND ISC AND LGPL-2.0-or-later AND LGPL-2.1-or-later";

export const summary = "One copy of every tensor per machine: the server";

export const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** Before a checkout has a commit, and where it has none: the earliest time that a zip file can hold. */
const earliestSeconds = 315_532_800;

/** The time that every file of an artefact has: the commit's, so that a second build has the same. */
export async function releaseSeconds() {
  return (await readCommit())?.seconds ?? earliestSeconds;
}
