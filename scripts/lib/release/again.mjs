/** The second build: the same commit in another folder must come to the same bytes. */

import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure, root } from "../process.mjs";
import { need } from "./stage.mjs";

/** What a checkout gets by installing, and need not fetch again: copied, since a link leads back to the first folder. */
const libc = ["amd64", "arm64"].flatMap((name) => [`.tmp/debian/libc6_${name}`, `.tmp/debian/libc6_${name}-set-up`]);
const installed = ["node_modules", "clients/node/node_modules", ".tmp/runtime", ...libc];

/**
 * Builds the commit once more, in a folder that is removed afterwards, and compares the list of hashes.
 *
 * @param {string} list the list's path below the root
 * @param {string[]} architectures
 */
export async function compareWithAnother(list, architectures) {
  const folder = mkdtempSync(join(tmpdir(), "tensord-again-"));
  const other = join(folder, "another-name-of-the-checkout");
  try {
    console.log(`Building it again in ${other} …`);
    await need("clone the checkout", "git", ["clone", "--quiet", "--no-hardlinks", root, other]);
    for (const path of installed.filter((name) => existsSync(join(root, name)))) {
      mkdirSync(join(other, path, ".."), { recursive: true });
      cpSync(join(root, path), join(other, path), {
        recursive: true,
        verbatimSymlinks: true,
        preserveTimestamps: true,
      });
    }
    const args = ["--build-only", ...architectures.map((name) => `--arch=${name}`)];
    const output = await need("build it again", process.execPath, [join(other, "scripts/release.mjs"), ...args], {
      cwd: other,
    });
    const [first, second] = [root, other].map((place) => readFileSync(join(place, list), "utf8"));
    if (first === second) return console.log("built again in another folder: identical bytes");
    throw new Failure(
      `Cannot release: a second build in another folder came to other bytes.\n${first}\n${second}\n${output}`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
