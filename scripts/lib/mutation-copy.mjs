/**
 * A copy of the checkout as it stands, to be broken: its files are its own, both clients among them, and its packages are
 * links to the checkout's.
 */

import {
  cpSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Failure, root, run } from "./process.mjs";

/** Where workspaces have packages of their own. */
const workspaces = ["clients/node", "tests/generated"];

/** The copy's root. */
export const copy = join(root, ".tmp/mutations");

/** Makes it anew. Who makes it removes it. */
export async function makeCopy() {
  rmSync(copy, { recursive: true, force: true });
  for (const file of await listFiles()) {
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    cpSync(join(root, file), join(copy, file));
  }
  mkdirSync(join(copy, ".tmp"));
  linkNodePackages();
  linkPythonPackages();
}

/** Tracked files and new ones that nothing ignores. One that git still lists may be gone. */
async function listFiles() {
  const { status, output } = await run("git", ["ls-files", "-co", "--exclude-standard", "-z"], { capture: true });
  if (status !== 0) throw new Failure(`Cannot copy the checkout: git ended with status ${status} and said: ${output}`);
  return output
    .split("\0")
    .filter((file) => file !== "" && lstatSync(join(root, file), { throwIfNoEntry: false })?.isFile());
}

function linkNodePackages() {
  linkEach("node_modules", (name) => name !== "@tensord");
  // The workspaces themselves: links within the checkout, and so within the copy.
  mkdirSync(join(copy, "node_modules/@tensord"));
  for (const name of readdirSync(join(root, "node_modules/@tensord"))) {
    const link = join("node_modules/@tensord", name);
    symlinkSync(readlinkSync(join(root, link)), join(copy, link));
  }
  for (const workspace of workspaces) linkEach(`${workspace}/node_modules`);
}

/** An environment of its own, whose `.pth` file names the copy's client. */
function linkPythonPackages() {
  linkEach(".venv", (name) => !name.startsWith("lib"));
  for (const version of readdirSync(join(root, ".venv/lib"))) {
    const packages = join(".venv/lib", version, "site-packages");
    const isPath = (name) => name.endsWith(".pth");
    linkEach(packages, (name) => !isPath(name));
    for (const name of readdirSync(join(root, packages)).filter(isPath)) {
      const text = readFileSync(join(root, packages, name), "utf8");
      writeFileSync(join(copy, packages, name), text.replaceAll(root, copy));
    }
  }
}

/** Makes the folder in the copy, with a link to each entry of the checkout's that is `wanted`. */
function linkEach(folder, wanted = () => true) {
  mkdirSync(join(copy, folder), { recursive: true });
  for (const name of readdirSync(join(root, folder)).filter(wanted)) {
    symlinkSync(join(root, folder, name), join(copy, folder, name));
  }
}
