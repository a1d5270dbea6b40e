/**
 * Debian's packages, unpacked and not installed: the C library of the image, and tools that try a release out. They are pinned by version and
 * hash, and got from the machine's own sources of Debian by an apt with a state of its own.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "../process.mjs";
import { fingerprint, once } from "../stamp.mjs";
import { hashFile, need } from "./stage.mjs";

const folder = ".tmp/debian";

/** What is used of Debian 12. The C library's hashes are by Debian's word for the processor. */
export const pins = {
  "libc6:amd64": {
    version: "2.36-9+deb12u14",
    sha256: "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf",
  },
  "libc6:arm64": {
    version: "2.36-9+deb12u14",
    sha256: "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
  },
  "runc:amd64": {
    version: "1.1.5+ds1-1+deb12u1",
    sha256: "a00351f8c0318de0b424ecf5cd0fdb69880a89f3511cae4f6fff7de3e57881c5",
  },
  "umoci:amd64": {
    version: "0.4.7+ds-3+b7",
    sha256: "8adce0c435368b8514425bfa31647ff1629241c97331ba4cd3da838a61a58e5a",
  },
  "qemu-user-static:amd64": {
    version: "1:7.2+dfsg-7+deb12u18+b3",
    sha256: "c3e3ba2bd87f8c5b9a5da5ef21b5a3b82d7c63b89dd448d9ddaa4eabc5b6e402",
  },
};

/** The machine's sources that have Debian's main component, in both ways to write them (sources.list(5)). */
function findSources() {
  const parts = "/etc/apt/sources.list.d";
  const names = existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : [];
  const files = ["/etc/apt/sources.list", ...names].filter((path) => existsSync(path));
  const read = (end) => files.filter((path) => path.endsWith(end)).map((path) => readFileSync(path, "utf8"));
  const list = read(".list").flatMap((text) => text.split("\n").filter((line) => /^deb\s.*\smain(\s|$)/.test(line)));
  const stanzas = read(".sources").flatMap((text) => text.replace(/^#.*\n/gm, "").split(/\n\s*\n/));
  const isDebian = (text) => /^Components:.*\bmain\b/m.test(text) && /debian/i.test(text);
  return { "debian.list": list.join("\n"), "debian.sources": stanzas.filter(isDebian).join("\n\n") };
}

/** apt's options for a state below the folder, so that what the machine knows of packages stays as it is. */
function makeState() {
  const state = join(root, folder, "apt");
  for (const name of ["parts", "lists/partial", "cache/archives/partial", "state"])
    mkdirSync(join(state, name), { recursive: true });
  const sources = Object.entries(findSources()).filter(([, text]) => text.trim() !== "");
  if (sources.length === 0)
    throw new Failure(
      "Cannot fetch Debian's packages: /etc/apt has no source of Debian, want a machine with Debian 12.",
    );
  for (const [name, text] of sources) writeFileSync(join(state, "parts", name), `${text}\n`);
  const options = {
    "APT::Architectures": "amd64,arm64",
    "APT::Sandbox::User": "root",
    "Acquire::Languages": "none",
    "Dir::Cache": join(state, "cache"),
    "Dir::Etc::SourceList": "/dev/null",
    "Dir::Etc::SourceParts": join(state, "parts"),
    "Dir::State": join(state, "state"),
    "Dir::State::Lists": join(state, "lists"),
  };
  return ["-q", ...Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`])];
}

async function download(name, { version, sha256 }, target, onStart) {
  const options = makeState();
  const get = () =>
    run("apt-get", [...options, "download", `${name}=${version}`], { cwd: target, capture: true, onStart });
  let result = await get();
  // The lists are fetched where none are there, or they are of another day.
  if (result.status !== 0 && !result.missing) {
    await need("read Debian's lists of packages", "apt-get", [...options, "update"], { onStart });
    result = await get();
  }
  if (result.missing)
    throw new Failure(`Cannot fetch ${name}: apt-get is not on the PATH, want a machine with Debian 12.`);
  const archive = readdirSync(target).find((file) => file.endsWith(".deb"));
  if (archive === undefined)
    throw new Failure(
      `Cannot fetch Debian's ${name} ${version}: ${result.output.trim().split("\n").at(-1)}. If Debian has a newer one, renew the pin in ` +
        "scripts/lib/release/debian.mjs.",
    );
  const hash = await hashFile(join(target, archive));
  if (hash !== sha256) throw new Failure(`Cannot use Debian's ${name}: its hash is ${hash}, want ${sha256}`);
  return join(target, archive);
}

const placeOf = (name) => `${folder}/${name.replace(":", "_")}`;

/** Whether the package is there already: for tests that do without what would have to be fetched. */
export const hasDebian = (name) => existsSync(join(root, placeOf(name)));

/**
 * Unpacks a package.
 *
 * @param {keyof typeof pins} name
 * @returns {Promise<string>} the folder, as it would be the root
 */
export async function setUpDebian(name) {
  const pin = pins[name];
  const result = placeOf(name);
  await once({
    title: `Fetching Debian's ${name} ${pin.version}`,
    lock: "debian",
    stamp: `${result}-set-up`,
    result,
    fingerprint: fingerprint([], [pin.version, pin.sha256]),
    work: async (onStart) => {
      const made = join(root, `${result}-new`);
      for (const path of [made, join(root, result)]) rmSync(path, { recursive: true, force: true });
      mkdirSync(made, { recursive: true });
      const archive = await download(name, pin, made, onStart);
      await need(`unpack ${name}`, "dpkg-deb", ["-x", archive, join(made, "root")], { onStart });
      renameSync(join(made, "root"), join(root, result));
      rmSync(made, { recursive: true });
    },
  });
  return join(root, result);
}
