/**
 * The server as one executable: Bun, what `src` comes to, and its bytecode. It starts in half of the processor time
 * that the sources take, and reads no file of the folder that it is started in.
 */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { bun } from "./server-packages.mjs";
import { fingerprint, once } from "./stamp.mjs";

/** What people run, below the root. */
export const executable = "dist/tensord";

/** The server of the fault tests, which kills itself after a step. */
export const steppedExecutable = ".tmp/executable/stepped-server";

/** Paths below the root, in an order that does not depend on the file system. */
function sources() {
  return readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    .sort();
}

async function compile(entry, outfile, onStart) {
  const workers = sources().filter((file) => file.endsWith(".worker.ts"));
  const flags = [
    ...["--compile", "--bytecode", "--format=esm"],
    // Beside the entry, where `new URL("./x.worker.ts", import.meta.url)` looks for a Worker.
    "--entry-naming=[name].[ext]",
    // Settings come from the environment and from flags: no file of the working directory changes the server.
    ...["dotenv", "bunfig", "tsconfig", "package-json"].map((file) => `--no-compile-autoload-${file}`),
  ];
  const args = ["build", ...flags, entry, ...workers, `--outfile=${join(root, outfile)}`];
  const { status, output } = await run(bun, args, { capture: true, onStart });
  if (status === 0) return;
  throw new Failure(`Cannot build ${outfile}: bun build ended with status ${status} and said:\n${output.trimEnd()}`);
}

async function build({ title, entry, outfile, stamp }) {
  const files = ["package-lock.json", "scripts/lib/executable.mjs", entry, ...sources()];
  await once({
    title,
    lock: "executable",
    stamp,
    result: outfile,
    // The names too: a file that moved is another result.
    fingerprint: fingerprint(files, files),
    work: (onStart) => compile(entry, outfile, onStart),
  });
}

/** Makes `dist/tensord` what the sources say. The server's packages must be set up. Takes milliseconds when it is. */
export async function buildExecutable() {
  await build({
    title: "Building the executable",
    entry: "src/main.ts",
    outfile: executable,
    stamp: ".tmp/executable-built",
  });
}

/** As `buildExecutable`, for the server of the fault tests. */
export async function buildSteppedExecutable() {
  await build({
    title: "Building the server of the fault tests",
    entry: "tests/harness/stepped-server.ts",
    outfile: steppedExecutable,
    stamp: ".tmp/stepped-executable-built",
  });
}
