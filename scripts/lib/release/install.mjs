/** Installs artefacts as people do, each into a folder of its own, and says how they are run then. */

import { cpSync, mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { root } from "../process.mjs";
import { pythonEnvironment } from "../python-packages.mjs";
import { npmCommand } from "../server-packages.mjs";
import { runUv } from "../uv.mjs";
import { version } from "./facts.mjs";
import { need } from "./stage.mjs";

const makeFolder = (name) => mkdtempSync(join(tmpdir(), `tensord-${name}-`));

/** Unpacks the release file. @returns the folder, and the executable's path */
export async function installFile(archive) {
  const folder = makeFolder("file");
  await need("unpack the release file", "tar", ["-xzf", join(root, archive), "-C", folder, "--strip-components=1"]);
  return { folder, command: join(folder, "tensord") };
}

/**
 * Installs wheels into a new environment of `interpreter`. What they need beside each other comes from the index, and is there before them: they
 * themselves come from here, and an index that knows their names is not asked.
 *
 * @param {{ wheels: string[], requirement: string, needs?: string[] }} what
 * @returns the folder, the command's path, and the environment's Python
 */
export async function installWheels(interpreter, { wheels, requirement, needs = [] }) {
  const folder = makeFolder("wheel");
  const options = { env: pythonEnvironment() };
  await runUv("make an environment", ["venv", "--no-project", "--python", interpreter, join(folder, "venv")], options);
  const python = join(folder, "venv/bin/python");
  const install = ["pip", "install", "--python", python];
  if (needs.length > 0) await runUv(`install what ${requirement} needs`, [...install, ...needs], options);
  mkdirSync(join(folder, "wheels"));
  for (const wheel of wheels) cpSync(resolve(root, wheel), join(folder, "wheels", wheel.split("/").at(-1)));
  const links = ["--no-index", "--find-links", join(folder, "wheels"), `${requirement}==${version}`];
  await runUv(`install ${requirement}`, [...install, ...links], options);
  return { folder, command: join(folder, "venv/bin/tensord"), python };
}

/** Installs npm's packages. @returns the folder, and the command's path */
export async function installPackages(archives) {
  const folder = makeFolder("npm");
  const [command, ...before] = npmCommand();
  const flags = ["--no-audit", "--no-fund", "--ignore-scripts", `--prefix=${folder}`, "--prefer-offline"];
  await need(
    "install the npm packages",
    command,
    [...before, "install", ...flags, ...archives.map((path) => join(root, path))],
    {
      cwd: folder,
    },
  );
  return { folder, command: join(folder, "node_modules/.bin/tensord") };
}
