/**
 * Clients that others generate from `openapi.yaml`: the generator drops nothing, what it writes compiles together with a
 * small driver (`tests/generated`), and the driver talks to a live server, and to one of tomorrow. What was generated and
 * compiled is kept, and made anew when anything of what it follows from has changed.
 */

import { describe, expect } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { basename, join } from "node:path";
import { openApiPath } from "../../scripts/openapi.ts";
import { checkSchema, document, operations, type Problem, type Region } from "../harness/answers.ts";
import { needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { within } from "../harness/server-wait.ts";
import { startTomorrow, tomorrows } from "../harness/tomorrow.ts";

interface Generator {
  readonly name: string;
  readonly needs?: string | undefined;
  /** Paths below `tests/generated`. */
  readonly files: readonly string[];
  readonly generate: readonly string[];
  /** All that a generator says that understood the whole document. */
  readonly quiet: RegExp;
  readonly check: readonly string[];
  /** The driver, which gets the server's URL as well. */
  readonly drive: readonly string[];
}

const sources = join(root, "tests/generated");
const nodeTool = (name: string) => join(sources, "node_modules/.bin", name);

const generators: readonly Generator[] = [
  {
    name: "openapi-typescript",
    files: ["tsconfig.json", "openapi-typescript/driver.ts"],
    generate: [nodeTool("openapi-typescript"), openApiPath, "--output", "client.ts"],
    quiet: /^✨ openapi-typescript [\d.]+\n🚀 .*openapi\.yaml → client\.ts \[[\d.]+m?s\]$/,
    check: [nodeTool("tsc"), "--project", "."],
    drive: ["node", "driver.js"],
  },
  {
    name: "@hey-api/openapi-ts",
    files: ["tsconfig.json", "hey-api/driver.ts"],
    generate: [nodeTool("openapi-ts"), "--input", openApiPath, "--output", "client", "--no-log-file"],
    quiet:
      /^@hey-api\/openapi-ts v[\d.]+\n\n\[Job 1\] ⏳ Generating from 1 input:\n\[Job 1\] {3}\[1\] .*openapi\.yaml\n\[Job 1\] ✅ Done! Your output is in .*client$/,
    check: [nodeTool("tsc"), "--project", "."],
    drive: ["node", "driver.js"],
  },
  {
    name: "openapi-python-client",
    needs: needsStockPython,
    files: ["openapi-python-client/config.yaml", "openapi-python-client/driver.py"],
    generate: [
      ...[stockPython, "-m", "openapi_python_client", "generate", "--path", openApiPath, "--meta=none"],
      ...["--output-path=client", "--config=config.yaml", "--fail-on-warning"],
    ],
    quiet: /^Generating client$/,
    check: [stockPython, "-m", "mypy", "--strict", "--config-file=", "driver.py"],
    drive: [stockPython, "driver.py"],
  },
];

/** Below the root, so that Node finds its packages from there. */
const parent = join(root, ".tmp/generated");

/** Everything that a generated client follows from: the lock files stand for generators, compilers and types. */
function fingerprintOf({ files, generate, check }: Generator): string {
  const hasher = new Bun.CryptoHasher("sha256");
  const locks = ["package-lock.json", "clients/python/uv.lock"].map((name) => join(root, name));
  const inputs = [import.meta.path, openApiPath, ...locks, ...files.map((file) => join(sources, file))];
  for (const path of inputs) hasher.update(readFileSync(path));
  return hasher
    .update(JSON.stringify([process.version, generate, check]))
    .digest("hex")
    .slice(0, 16);
}

/** A folder with the driver and the client, generated and compiled. It gets its name once all of it has passed. */
async function makeClient(generator: Generator): Promise<string> {
  const { name, files, generate, quiet, check } = generator;
  const kind = name.replaceAll(/\W/g, "");
  const path = join(parent, `${kind}-${fingerprintOf(generator)}`);
  if (existsSync(path)) return path;
  mkdirSync(parent, { recursive: true });
  const made = mkdtempSync(join(parent, "new-"));
  try {
    for (const file of files) copyFileSync(join(sources, file), join(made, basename(file)));
    expect(await run(generate, made)).toMatch(quiet);
    expect(findLost(made)).toEqual([]);
    await run(check, made);
  } catch (error) {
    rmSync(made, { recursive: true });
    throw error;
  }
  for (const old of readdirSync(parent)) if (old.startsWith(`${kind}-`)) rmSync(join(parent, old), { recursive: true });
  renameSync(made, path);
  return path;
}

/** A generator and a compiler have much to do, the more so on a machine that is busy. */
const generatorPatienceMs = 240_000;

/** What the command says on both streams. @throws Error with it if the command fails. */
async function run(command: readonly string[], folder: string): Promise<string> {
  const child = Bun.spawn([...command], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? "", NO_COLOR: "1" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    const ended = Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    const [stdout, stderr, status] = await within(`${command.join(" ")} ends`, ended, generatorPatienceMs);
    const said = Bun.stripANSI(stdout + stderr).trim();
    if (status !== 0) throw new Error(`${command.join(" ")} left with ${status}:\n${said}`);
    return said;
  } finally {
    child.kill("SIGKILL");
  }
}

/** Operations and schemas of the document that no file of the client mentions, in its name or in its text. */
function findLost(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map((entry) => join(entry.parentPath, entry.name));
  const client = paths.filter((path) => path.startsWith(join(folder, "client")));
  const words = new Set(client.flatMap((path) => `${path}\n${readFileSync(path, "utf8")}`.match(/\w+/g) ?? []));
  const names = [...operations.map(({ operationId }) => operationId), ...Object.keys(document.components.schemas)];
  return names.filter((name) => !words.has(name) && !words.has(toSnakeCase(name)));
}

/** As Python writes it. */
function toSnakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** What a driver tells of its talk with the server, once it has gone through the generated types and back. */
interface Told {
  readonly region: Region;
  readonly listed: readonly Omit<Region, "tensors">[];
  readonly problem: Problem;
  readonly events: readonly { readonly type: string }[];
  readonly storages: readonly string[];
  readonly dtypes: readonly string[];
  readonly findings: readonly string[];
}

async function checkTold(told: Told, server: TestServer): Promise<void> {
  expect(told).toMatchObject({
    allocated: 201,
    region: {
      model: "default",
      name: "weights",
      state: "open",
      owner: { kind: "ttl", ttl_ms: 60_000 },
      labels: { job: "nightly" },
      tensors: [{ name: "w", dtype: "BF16", shape: [2, 3], byte_offset: 4096, byte_size: 12 }],
      checksum: null,
    },
    next_cursor: null,
    events: [{ type: "tensord.region.allocated", subject: told.region.id }],
    open: 1,
    instance: server.instance.name,
    missing: 404,
    problem: { status: 404, code: "region-not-found" },
    // A page for the header, one for the tensor.
    deletion: { state: "deleted", freed_bytes: 2 * 4096 },
  });
  checkSchema("Region", told.region, "the region as the client has it");
  checkSchema("Problem", told.problem, "the problem as the client has it");
  const { tensors: _, ...facts } = told.region;
  expect(told.listed).toEqual([facts]);
  expect(await server.api.list()).toEqual([]);
}

/** What the client made of a server whose every word and object is more than the client was generated from. */
function checkTomorrow(told: Told): void {
  const { storage, owner, tensors } = told.region;
  expect(told).toMatchObject({
    allocated: 201,
    region: { state: "open", owner: { kind: tomorrows("ttl"), ttl_ms: 60_000 } },
    problem: { status: 404, code: tomorrows("region-not-found") },
    deletion: { state: "deleted" },
  });
  expect([storage.kind, storage.format]).toEqual([tomorrows("shm"), tomorrows("safetensors")]);
  expect(tensors.map(({ dtype }) => dtype)).toEqual([tomorrows("BF16")]);
  expect(told.listed.map((region) => region.owner.kind)).toEqual([owner.kind]);
  const types = told.events.map(({ type }) => type);
  for (const words of [types, told.storages, told.dtypes, told.findings]) {
    expect(words.length).toBeGreaterThan(0);
    expect(words.filter((word) => !word.endsWith(tomorrows("")))).toEqual([]);
  }
}

describe("a client generated by", () => {
  for (const generator of generators) {
    testWith(generator.needs)(
      `${generator.name} loses nothing of the document, compiles, talks to the server, and goes on with one of tomorrow`,
      async () => {
        const folder = await makeClient(generator);
        await using server = await startServer({ env: { TENSORD_PORT: "0" } });
        const url = await server.readUrl();
        await checkTold(JSON.parse(await run([...generator.drive, url], folder)), server);
        await using tomorrow = startTomorrow(url);
        checkTomorrow(JSON.parse(await run([...generator.drive, tomorrow.url], folder)));
      },
    );
  }
});
