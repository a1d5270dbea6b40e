/** The release file: the executable, its notices and the systemd unit, in one archive. */

import { copyFileSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { executableFor } from "../executable.mjs";
import { root } from "../process.mjs";
import { releaseFolder, version } from "./facts.mjs";
import { toBillOfMaterials, toNotices } from "./notices.mjs";
import { makeStage, need, packTar, place } from "./stage.mjs";

/** What goes with the executable wherever it goes, into `folder`. */
export function placeNotices(folder, architecture, seconds, more) {
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  place(join(folder, "THIRD-PARTY.txt"), toNotices(architecture));
  place(join(folder, "sbom.cdx.json"), toBillOfMaterials(architecture, seconds, more));
}

/** @returns the archive's path, below the root */
export async function buildFile(architecture, seconds) {
  const name = `tensord-${version}-linux-${architecture}`;
  const stage = makeStage(`file-${architecture}`);
  const folder = join(stage, name);
  mkdirSync(folder);
  copyFileSync(join(root, executableFor(architecture)), join(folder, "tensord"));
  placeNotices(folder, architecture, seconds);
  for (const unit of readdirSync(join(root, "deploy/systemd")))
    copyFileSync(join(root, "deploy/systemd", unit), join(folder, unit));
  const archive = `${releaseFolder}/${name}.tar.gz`;
  await packTar(stage, join(root, releaseFolder, `${name}.tar`), seconds);
  // Without the name and the time of the archive inside.
  await need(`compress ${archive}`, "gzip", ["-nf", join(root, releaseFolder, `${name}.tar`)]);
  return archive;
}
