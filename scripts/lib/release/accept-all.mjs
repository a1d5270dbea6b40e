/** Installs every artefact, has each do what all of them must do, and prints how long that took. */

import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readCommit, toCommitText } from "../commit.mjs";
import { Failure, root } from "../process.mjs";
import { python as ourPython } from "../python-packages.mjs";
import { accept, makeInstanceName } from "./accept.mjs";
import { emulate } from "./emulate.mjs";
import { processors, releaseFolder } from "./facts.mjs";
import { installFile, installPackages, installWheels } from "./install.mjs";
import { installImage, missingForImages } from "./run-image.mjs";
import { need } from "./stage.mjs";

/** The artefact whose name matches, of which there is one. */
function find(pattern) {
  const found = readdirSync(join(root, releaseFolder)).filter((name) => pattern.test(name));
  if (found.length === 1) return `${releaseFolder}/${found[0]}`;
  throw new Failure(`Cannot accept the release: ${releaseFolder} has ${found.length} files like ${pattern}, want 1`);
}

const fileOf = (architecture) => find(new RegExp(`^tensord-[\\d.]+-linux-${architecture}\\.tar\\.gz$`));

const imageOf = (architecture) => find(new RegExp(`^tensord-[\\d.]+-linux-${architecture}\\.image\\.tar$`));

async function tell(installed) {
  const times = await accept(installed);
  console.log(`${installed.name}: accepted (${times.map(([step, ms]) => `${step} ${ms} ms`).join(", ")})`);
}

/** Accepts what can be installed on this machine: npm and pip refuse the packages of another processor. */
export async function acceptAll(architectures) {
  const folders = [];
  const keep = (installed) => {
    folders.push(installed.folder);
    return installed;
  };
  const own = process.arch;
  try {
    await need("check the sums", "sha256sum", ["--check", "--quiet", "SHA256SUMS"], { cwd: join(root, releaseFolder) });
    if (!architectures.includes(own)) return console.log(`nothing is accepted: this machine is ${own}`);
    const wheels = [find(/^tensord-.*\.whl$/), find(new RegExp(`^tensord_server-.*${processors[own].wheel}\\.whl$`))];
    const archives = [
      find(/^tensord-[\d.]+\.tgz$/),
      find(new RegExp(`^tensord-server-linux-${own}-.*\\.tgz$`)),
      find(/^tensord-client-.*\.tgz$/),
    ];
    const wheel = keep(
      await installWheels(ourPython, { wheels, requirement: "tensord[server]", needs: ["numpy", "websockets"] }),
    );
    const npm = keep(await installPackages(archives));
    const file = keep(await installFile(fileOf(own)));
    const clients = { python: wheel.python, nodeFolder: npm.folder, commit: toCommitText(await readCommit()) };
    for (const [name, { command }] of Object.entries({ file, wheel, npm })) {
      await tell({ name, command: [command], ...clients });
    }
    const missing = await missingForImages();
    if (missing !== undefined) console.log(`image: not run, it ${missing}`);
    else {
      const instance = makeInstanceName();
      const image = keep(await installImage(imageOf(own), instance));
      await tell({ name: "image", instance, ...image, ...clients });
    }
    for (const other of architectures.filter((name) => name !== own)) {
      const emulated = keep(await installFile(fileOf(other)));
      await tell({ name: `file for ${other}, emulated`, command: await emulate(other, emulated.command), ...clients });
    }
  } finally {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  }
}
