/**
 * Compiles the stand-in driver into `.tmp/cuda-stand-in/`, once for each state of its sources, and prints the folder that has
 * `libcuda.so.1`: what LD_LIBRARY_PATH is to begin with. Ends with 3 and a reason where this machine lacks what it takes.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";

const root = join(import.meta.dirname, "../..");
const strict = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-format-zero-length"];

/** Ends the process with a reason not to run what needs the stand-in. */
function lack(reason) {
  console.log(reason);
  process.exit(3);
}

function findCompiler() {
  const found = ["gcc", "clang", "cc"].find((name) => spawnSync(name, ["--version"]).status === 0);
  return found ?? lack("needs a C compiler");
}

/** The folder of <cuda.h>, which `nvidia-cuda-runtime` of the Python packages brings. */
export function findHeaders() {
  const lib = join(root, ".venv/lib");
  const pythons = existsSync(lib) ? readdirSync(lib).filter((name) => name.startsWith("python3")) : [];
  const found = pythons.map((name) => join(lib, name, "site-packages/nvidia/cu13/include"));
  return found.find((folder) => existsSync(join(folder, "cuda.h")));
}

/** Libraries by name, each with the sources that it is made of. */
const driver = ["settings.c", "card.c", "calls.c", "device.c", "vmm.c", "queue.c", "lookup.c"];
const libraries = {
  "libcuda.so.1": driver,
  // Of an old driver, in a folder of its own: without the functions of `old.map`.
  "old/libcuda.so.1": driver,
  "libnvidia-ml.so.1": ["settings.c", "card.c", "nvml.c"],
};

function compile(compiler, headers, folder) {
  for (const [name, sources] of Object.entries(libraries)) {
    const paths = sources.map((source) => join(import.meta.dirname, source));
    const hidden = name.startsWith("old/") ? [`-Wl,--version-script=${join(import.meta.dirname, "old.map")}`] : [];
    const shape = ["-fPIC", "-shared", `-Wl,-soname,${basename(name)}`, "-isystem", headers, "-o", join(folder, name)];
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    const { status, stderr } = spawnSync(compiler, [...strict, ...shape, ...hidden, ...paths, "-lpthread", "-ldl"]);
    if (status === 0) continue;
    rmSync(folder, { recursive: true });
    console.error(`The stand-in driver does not compile:\n${stderr}`);
    process.exit(1);
  }
}

function build() {
  const headers = findHeaders() ?? lack("needs cuda.h of .venv, which `npm test` makes");
  const compiler = findCompiler();
  const hash = createHash("sha256").update(readFileSync(join(headers, "cuda.h")));
  const sources = readdirSync(import.meta.dirname).filter((name) => /\.(c|h|map|mjs)$/.test(name));
  for (const name of sources.sort()) hash.update(readFileSync(join(import.meta.dirname, name)));
  const parent = join(root, ".tmp/cuda-stand-in");
  const folder = join(parent, hash.digest("hex").slice(0, 16));
  if (existsSync(folder)) return folder;
  mkdirSync(parent, { recursive: true });
  // Made beside it and then named, since several processes may come here at once.
  const made = mkdtempSync(join(parent, "new-"));
  compile(compiler, headers, made);
  try {
    renameSync(made, folder);
  } catch {
    rmSync(made, { recursive: true });
  }
  return folder;
}

console.log(build());
