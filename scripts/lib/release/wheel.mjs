/** The wheels: the server's, whose script is the executable itself, and the Python client's. */

import { copyFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { executableFor } from "../executable.mjs";
import { root } from "../process.mjs";
import { python, pythonEnvironment } from "../python-packages.mjs";
import { licenceExpression, processors, releaseFolder, summary, version } from "./facts.mjs";
import { placeNotices } from "./file.mjs";
import { makeStage, need, place } from "./stage.mjs";

// The same builder that the client names; the lock file has it.
const manifest = `[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "tensord-server"
version = "${version}"
description = "${summary}"
readme = "README.md"
license = "${licenceExpression}"
license-files = ["LICENSE", "THIRD-PARTY.txt"]
classifiers = ["Operating System :: POSIX :: Linux", "Topic :: Scientific/Engineering :: Artificial Intelligence"]

[tool.hatch.build.targets.wheel]
bypass-selection = true
shared-scripts = { tensord = "tensord" }
sbom-files = ["sbom.cdx.json"]

[tool.hatch.build.targets.wheel.hooks.custom]
path = "tag.py"
`;

/** A wheel with a program in it is one platform's, which hatchling asks a hook for. */
const tagHook = (tag) => `from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Tag(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["tag"] = "py3-none-${tag}"
        build_data["pure_python"] = False
`;

async function buildWheel(folder, seconds, target = releaseFolder) {
  const output = await need(
    "build a wheel",
    python,
    ["-m", "hatchling", "build", "-t", "wheel", "-d", resolve(root, target)],
    {
      cwd: folder,
      env: { ...pythonEnvironment(), SOURCE_DATE_EPOCH: `${seconds}` },
    },
  );
  // The last line is where it is.
  return join(target, basename(output.trim().split("\n").at(-1)));
}

/**
 * The server's, of `program`. The Python environment must be set up, as for the client's.
 *
 * @returns the wheel's path, below the root if `target` is
 */
export function buildServerWheel(architecture, seconds, target, program = join(root, executableFor(architecture))) {
  const folder = makeStage(`wheel-${architecture}`);
  placeNotices(folder, architecture, seconds);
  place(join(folder, "pyproject.toml"), manifest);
  place(join(folder, "tag.py"), tagHook(processors[architecture].wheel));
  copyFileSync(join(root, "packaging/pypi/README.md"), join(folder, "README.md"));
  copyFileSync(program, join(folder, "tensord"));
  return buildWheel(folder, seconds, target);
}

/** The Python client's. */
export function buildClientWheel(seconds) {
  return buildWheel(join(root, "clients/python"), seconds);
}
