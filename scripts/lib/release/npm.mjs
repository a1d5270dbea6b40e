/** The npm packages: a small `tensord`, one with the executable for each processor, and the Node client. None has an install script. */

import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { executableFor } from "../executable.mjs";
import { root } from "../process.mjs";
import { npmCommand } from "../server-packages.mjs";
import { licenceExpression, processors, releaseFolder, summary, version } from "./facts.mjs";
import { placeNotices } from "./file.mjs";
import { makeStage, need, place } from "./stage.mjs";

const nameFor = (architecture) => `@tensord/server-linux-${architecture}`;

const toJson = (value) => `${JSON.stringify(value, null, 2)}\n`;

async function pack(folder) {
  const [command, ...before] = npmCommand();
  const target = `--pack-destination=${join(root, releaseFolder)}`;
  const output = await need(`pack ${folder}`, command, [...before, "pack", folder, target, "--loglevel=error"]);
  // Scripts of the package print before it.
  return `${releaseFolder}/${output.trim().split("\n").at(-1)}`;
}

/** The one with the executable; npm installs it where the processor, the system and the C library are its. @returns its path, below the root */
export function buildPlatformPackage(architecture, seconds) {
  const folder = makeStage(`npm-${architecture}`);
  placeNotices(folder, architecture, seconds);
  copyFileSync(join(root, executableFor(architecture)), join(folder, "tensord"));
  place(
    join(folder, "README.md"),
    `# ${nameFor(architecture)}\n\nThe executable of the package \`tensord\`, for Linux with glibc on ${architecture}.\n`,
  );
  const manifest = {
    ...{ name: nameFor(architecture), version, description: summary, license: licenceExpression },
    ...{ os: ["linux"], cpu: [architecture], libc: ["glibc"], preferUnplugged: true },
    files: ["tensord", "THIRD-PARTY.txt", "sbom.cdx.json"],
  };
  place(join(folder, "package.json"), toJson(manifest));
  return pack(folder);
}

/** The one that people ask for. */
export function buildMainPackage() {
  const folder = makeStage("npm");
  const files = ["tensord.mjs", "executable.cjs"];
  for (const name of [...files, "README.md"]) copyFileSync(join(root, "packaging/npm", name), join(folder, name));
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  const { engines } = JSON.parse(readFileSync(join(root, "clients/node/package.json"), "utf8"));
  const manifest = {
    ...{ name: "tensord", version, description: summary, license: "Apache-2.0", engines },
    ...{ bin: { tensord: "tensord.mjs" }, main: "executable.cjs", files },
    optionalDependencies: Object.fromEntries(Object.keys(processors).map((name) => [nameFor(name), version])),
  };
  place(join(folder, "package.json"), toJson(manifest));
  return pack(folder);
}

/** The Node client, which npm builds before it packs. */
export function buildClientPackage() {
  return pack(join(root, "clients/node"));
}
