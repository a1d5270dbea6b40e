/**
 * The server as one executable: Bun, what `src` comes to, and its bytecode. It starts in half of the processor time
 * that the sources take, and reads no file of the folder that it is started in.
 */

import { mkdirSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { readCommit, toCommitText } from "./commit.mjs";
import { Failure, root, run } from "./process.mjs";
import { setUpRuntime } from "./runtime.mjs";
import { bun } from "./server-packages.mjs";
import { fingerprint, once } from "./stamp.mjs";

/** What people run, below the root. */
export const executable = "dist/tensord";

/** The same for any processor. The last part of the path is one for all: it goes into the bytes. */
export const executableFor = (architecture) =>
  architecture === process.arch ? executable : `dist/linux-${architecture}/tensord`;

/** Which packages went into `executableFor` of a processor: what Bun tells of it. */
export const metafileFor = (architecture) => `.tmp/executable/linux-${architecture}.json`;

/** The server of the fault tests, which kills itself after a step. */
export const steppedExecutable = ".tmp/executable/stepped-server";

/** Paths below the root, in an order that does not depend on the file system. */
function sources() {
  return readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    .sort();
}

async function compile({ entry, outfile, metafile, commit, architecture = process.arch, runtime }, onStart) {
  const workers = sources().filter((file) => file.endsWith(".worker.ts"));
  const flags = [
    ...["--compile", "--bytecode", "--format=esm"],
    // Beside the entry, where `new URL("./x.worker.ts", import.meta.url)` looks for a Worker.
    "--entry-naming=[name].[ext]",
    // Settings come from the environment and from flags: no file of the working directory changes the server.
    ...["dotenv", "bunfig", "tsconfig", "package-json"].map((file) => `--no-compile-autoload-${file}`),
    // Where the packages lay when it was built is nobody's business, and would make each folder's executable another.
    ...["__dirname", "__filename"].map((name) => `--define=${name}="/$bunfs"`),
    ...(commit === undefined ? [] : [`--define=TENSORD_COMMIT=${JSON.stringify(commit)}`]),
    ...(metafile === undefined ? [] : [`--metafile=${join(root, metafile)}`]),
    ...(runtime === undefined ? [] : [`--target=bun-linux-${architecture}`, `--compile-executable-path=${runtime}`]),
  ];
  for (const file of [outfile, metafile])
    if (file !== undefined) mkdirSync(dirname(join(root, file)), { recursive: true });
  const args = ["build", ...flags, entry, ...workers, `--outfile=${join(root, outfile)}`];
  const { status, output } = await run(bun, args, { capture: true, onStart });
  if (status === 0) return;
  throw new Failure(`Cannot build ${outfile}: bun build ended with status ${status} and said:\n${output.trimEnd()}`);
}

async function build({ title, stamp, ...what }) {
  const files = ["package-lock.json", "scripts/lib/executable.mjs", what.entry, ...sources()];
  await once({
    title,
    lock: "executable",
    stamp,
    result: what.outfile,
    // The names too: a file that moved is another result.
    fingerprint: fingerprint(files, [what.commit ?? "", ...files]),
    work: (onStart) => compile(what, onStart),
  });
}

/**
 * Makes the executable what the sources say, and has it say which commit they are of. The server's packages must be set up. Takes
 * milliseconds when it is.
 *
 * @param {string} architecture as Node calls it
 */
export async function buildExecutable(architecture = process.arch) {
  const runtime = await setUpRuntime(architecture);
  await build({
    title: runtime === undefined ? "Building the executable" : `Building the executable for ${architecture}`,
    entry: "src/main.ts",
    outfile: executableFor(architecture),
    metafile: metafileFor(architecture),
    commit: toCommitText(await readCommit()),
    architecture,
    runtime,
    stamp: `.tmp/executable-built${runtime === undefined ? "" : `-${architecture}`}`,
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
