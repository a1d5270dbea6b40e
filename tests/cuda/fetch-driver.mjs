/**
 * Unpacks NVIDIA's own `libcuda.so.1` into `.tmp/cuda-driver/`, out of Debian's package, and prints the folder. Nothing is installed and
 * nothing of it is committed. Ends with 3 and a reason where this machine cannot have it.
 */

import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "../..");
const parent = join(root, ".tmp/cuda-driver");
const folder = join(parent, "unpacked");
const packageName = "libcuda1";
const patienceMs = 90_000;

function lack(reason) {
  console.log(reason);
  process.exit(3);
}

/**
 * The machine's own sources, with the component in place of those that it has: so no address stands here. Both ways to write them
 * (sources.list(5)).
 */
function findSources() {
  const etc = "/etc/apt";
  const parts = existsSync(join(etc, "sources.list.d"))
    ? readdirSync(join(etc, "sources.list.d")).map((name) => `sources.list.d/${name}`)
    : [];
  const files = ["sources.list", ...parts].filter((name) => existsSync(join(etc, name)));
  const read = (end) => files.filter((name) => name.endsWith(end)).map((name) => readFileSync(join(etc, name), "utf8"));
  const lines = read(".list").flatMap((text) => text.split("\n"));
  const ours = lines
    .filter((line) => /^deb\s.*\smain(\s|$)/.test(line))
    .map((line) => line.replace(/\smain(\s.*)?$/, " non-free"));
  const stanzas = read(".sources").flatMap((text) => text.split(/\n\s*\n/));
  const debian = stanzas.filter((text) => /^Components:.*\bmain\b/m.test(text) && /^Types:.*\bdeb\b/m.test(text));
  const theirs = debian.map((text) => text.replace(/^Components:.*$/m, "Components: non-free").replace(/^#.*\n/gm, ""));
  return { list: ours.join("\n"), sources: theirs.join("\n\n") };
}

/** apt with a state of its own, so that what the machine knows of packages stays as it is. */
function makeApt(made) {
  const { list, sources } = findSources();
  if (list === "" && sources === "") lack("needs apt sources of Debian");
  for (const name of ["parts", "lists/partial", "cache/archives/partial", "state"])
    mkdirSync(join(made, name), { recursive: true });
  if (list !== "") writeFileSync(join(made, "parts/driver.list"), `${list}\n`);
  if (sources !== "") writeFileSync(join(made, "parts/driver.sources"), `${sources}\n`);
  const options = {
    "Dir::Etc::SourceList": "/dev/null",
    "Dir::Etc::SourceParts": join(made, "parts"),
    "Dir::State": join(made, "state"),
    "Dir::State::Lists": join(made, "lists"),
    "Dir::Cache": join(made, "cache"),
    "APT::Sandbox::User": "root",
    "APT::Update::Error-Mode": "any",
    "Acquire::Retries": "0",
    "Acquire::http::Timeout": "15",
    "Acquire::https::Timeout": "15",
    "Acquire::Languages": "none",
  };
  const flags = Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  return (...args) =>
    spawnSync("apt-get", [...flags, "-q", ...args], { cwd: made, encoding: "utf8", timeout: patienceMs });
}

function tellEnd({ error, stderr }) {
  return error?.message ?? stderr.trim().split("\n").at(-1) ?? "";
}

function unpack(made) {
  const apt = makeApt(made);
  // A suite may lack the component; then the package is in another, or nowhere.
  const update = apt("update");
  const download = apt("download", packageName);
  if (download.status !== 0)
    lack(`needs Debian's ${packageName} (non-free): ${tellEnd(update.status === 0 ? download : update)}`);
  const archive = readdirSync(made).find((name) => name.endsWith(".deb"));
  const unpacked = spawnSync("dpkg", ["-x", archive, "unpacked"], { cwd: made, encoding: "utf8" });
  if (unpacked.status !== 0) lack(`needs dpkg, to unpack ${archive}: ${tellEnd(unpacked)}`);
}

function findLibrary() {
  const files = readdirSync(folder, { recursive: true });
  const found = files.find((name) => name.endsWith("/libcuda.so.1"));
  return found === undefined ? lack(`${packageName} has no libcuda.so.1`) : join(folder, found, "..");
}

if (process.platform !== "linux") lack("needs Linux");
if (!existsSync(folder)) {
  mkdirSync(parent, { recursive: true });
  const made = mkdtempSync(join(parent, "new-"));
  process.on("exit", () => rmSync(made, { recursive: true, force: true }));
  unpack(made);
  try {
    renameSync(join(made, "unpacked"), folder);
  } catch (error) {
    // Another process was first.
    if (!existsSync(folder)) throw error;
  }
}
console.log(findLibrary());
