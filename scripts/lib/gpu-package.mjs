/**
 * The tests that want a card: run here, or packed with all that they need, for a machine that has a card, Python and no network. Bun is
 * most of it.
 */

import { cpSync, linkSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Failure, root, run } from "./process.mjs";
import { installForClient, python, setUpPython } from "./python-packages.mjs";
import { bun, setUpPackages } from "./server-packages.mjs";

const runner = "tests/gpu/run.py";
const name = "tensord-gpu-tests";
const archive = `dist/${name}.tar`;

/** What is run, and what that imports. */
const sources = [
  ...["LICENSE", "package.json", "bunfig.toml", "tsconfig.json", "src", "tests/rounds.json"],
  ...["tests/gpu", "tests/conformance", "tests/contract/support", "tests/harness"],
  ...["clients/python/src", ...["forked", "harness", "cuda_stand_in"].map((name) => `clients/python/tests/${name}.py`)],
];
/** Of the page at /docs only these two are asked for. */
const swaggerFiles = ["package.json", "swagger-ui.css", "swagger-ui-bundle.js"];
/** Packages that only the clients use, and Bun, whose executable is all of it that is needed. */
const unneeded = /^node_modules\/(@oven\/|@scarf\/|@tensord\/|bun$|koffi$|swagger-ui-dist$|ws$)/;
const leftOut = /(^|\/)(__pycache__|tests|[^/]+\.pyi|[^/]+\.egg-info)$/;

/** @param {string[]} args */
export async function testGpu(args) {
  const { values } = parseArgs({
    args,
    options: {
      ...{ pack: { type: "boolean" }, fast: { type: "boolean" }, python: { type: "string" } },
      only: { type: "string", multiple: true, default: [] },
    },
  });
  await setUpPackages();
  await setUpPython();
  if (!values.pack) return (await run(python, [runner, ...values.only.flatMap((part) => ["--only", part])])).status;
  const packed = await pack(values);
  const megabytes = (statSync(packed).size / 2 ** 20).toFixed(1);
  console.log(`${packed}: ${megabytes} MiB. On the machine with the card:`);
  console.log(`  python3 -m tarfile -e ${packed.slice(root.length + 6)} && REQUIRE_GPU=1 python3 ${name}/${runner}`);
  return 0;
}

/** @returns the archive's path */
async function pack({ python: version, fast: isFast = false }) {
  const folder = join(root, ".tmp", name);
  rmSync(folder, { recursive: true, force: true });
  for (const path of sources) copy(path, folder, (each) => !/__pycache__/.test(each));
  for (const path of serverPackages()) copy(path, folder);
  for (const file of swaggerFiles) copy(`node_modules/swagger-ui-dist/${file}`, folder);
  mkdirSync(join(folder, "node_modules/.bin"), { recursive: true });
  // Not copied: it has 100 MB.
  linkSync(realpathSync(bun), join(folder, "node_modules/.bin/bun"));
  const packages = join(folder, "python");
  await installForClient(packages, version);
  for (const path of readdirSync(packages, { recursive: true })) {
    if (leftOut.test(path)) rmSync(join(packages, path), { recursive: true, force: true });
  }
  return await compress(folder, isFast);
}

function copy(path, folder, filter = () => true) {
  cpSync(join(root, path), join(folder, path), { recursive: true, dereference: true, filter });
}

/** Paths of the packages that the server imports. */
function serverPackages() {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  return Object.entries(packages)
    .filter(
      ([path, { dev, optional }]) => path.startsWith("node_modules/") && !dev && !optional && !unneeded.test(path),
    )
    .map(([path]) => path);
}

/** Python has what it takes, here and there. @returns the archive's path */
async function compress(folder, isFast) {
  const packed = join(root, isFast ? archive : `${archive}.xz`);
  mkdirSync(join(root, "dist"), { recursive: true });
  const program = [
    "import sys, tarfile",
    'kind, options = ("w", {}) if sys.argv[3] == "fast" else ("w:xz", {"preset": 4})',
    "with tarfile.open(sys.argv[1], kind, **options) as archive:",
    `    archive.add(sys.argv[2], "${name}")`,
  ].join("\n");
  const args = ["-c", program, packed, folder, isFast ? "fast" : "small"];
  const { status, output } = await run(python, args, { capture: true });
  if (status !== 0) throw new Failure(`Cannot pack ${packed}: ${output.trimEnd()}`);
  rmSync(folder, { recursive: true });
  return packed;
}
