/**
 * Clients that others generate from `openapi.yaml`: the generator drops nothing, and what it writes compiles together with
 * two programs that talk to a live server. The row's driver does what every driver of the generator check does; `told`
 * (`tests/generated`) tells what it was answered, by a server of today and by one of tomorrow. What was generated and
 * compiled is kept, and made anew when anything of what it follows from has changed.
 */

import { describe, expect } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { drive } from "../generators/drive.ts";
import { heyApi } from "../generators/hey-api/row.ts";
import { openApiPythonClient } from "../generators/openapi-python-client/row.ts";
import { openApiTypeScript } from "../generators/openapi-typescript/row.ts";
import { filesOf, type Row } from "../generators/row.ts";
import { Work } from "../generators/work.ts";
import { checkSchema, document, operations, type Problem, type Region } from "../harness/answers.ts";
import { needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { startTomorrow, tomorrows } from "../harness/tomorrow.ts";

interface Generator {
  readonly row: Row;
  readonly needs?: string | undefined;
  /** All that a generator says that understood the whole document. */
  readonly quiet: RegExp;
  /** The program that tells, which gets the server's URL as well. */
  readonly tell: readonly string[];
}

const generators: readonly Generator[] = [
  {
    row: openApiTypeScript,
    quiet: /^✨ openapi-typescript [\d.]+\n🚀 .*openapi\.yaml → client\.ts \[[\d.]+m?s\]$/,
    tell: ["node", "told.js"],
  },
  {
    row: heyApi,
    quiet:
      /^@hey-api\/openapi-ts v[\d.]+\n\n\[Job 1\] ⏳ Generating from 1 input:\n\[Job 1\] {3}\[1\] .*openapi\.yaml\n\[Job 1\] ✅ Done! Your output is in .*client$/,
    tell: ["node", "told.js"],
  },
  {
    row: openApiPythonClient,
    needs: needsStockPython,
    quiet: /^Generating client$/,
    tell: [stockPython, "told.py"],
  },
];

/** Below the root, so that Node finds its packages from there. */
const parent = join(root, ".tmp/generated");

/** A generator and a compiler have much to do, the more so on a machine that is busy. */
const patienceMs = 240_000;

/** Everything that a generated client follows from: the lock files stand for generators, compilers and types. */
function fingerprintOf(row: Row): string {
  const hasher = new Bun.CryptoHasher("sha256");
  const below = ["package-lock.json", "clients/python/uv.lock", row.document, `tests/generators/${row.name}/row.ts`];
  for (const path of [import.meta.path, ...below.map((name) => join(root, name)), ...filesOf(row)])
    hasher.update(readFileSync(path));
  return hasher.update(process.version).digest("hex").slice(0, 16);
}

/** A folder with the programs and the client, generated and compiled. It gets its name once all of it has passed. */
async function makeClient({ row, quiet }: Generator): Promise<Work> {
  const path = join(parent, `${row.name}-${fingerprintOf(row)}`);
  const made = new Work(path, row.document, patienceMs);
  if (existsSync(path)) return made;
  mkdirSync(parent, { recursive: true });
  const work = new Work(mkdtempSync(join(parent, "new-")), row.document, patienceMs);
  try {
    work.layOut(filesOf(row));
    expect(Bun.stripANSI(await row.generate(work)).trim()).toMatch(quiet);
    expect(findLost(work.folder)).toEqual([]);
    await row.compile(work);
  } catch (error) {
    rmSync(work.folder, { recursive: true });
    throw error;
  }
  for (const old of readdirSync(parent))
    if (old.startsWith(`${row.name}-`)) rmSync(join(parent, old), { recursive: true });
  renameSync(work.folder, path);
  return made;
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

function checkTold(told: Told, server: TestServer): void {
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
    const { row, needs, tell } = generator;
    testWith(needs)(
      `${row.name} loses nothing of the document, compiles, talks to the server, and goes on with one of tomorrow`,
      async () => {
        const work = await makeClient(generator);
        await using server = await startServer({ env: { TENSORD_PORT: "0" } });
        const url = await server.readUrl();
        checkTold(JSON.parse(await work.run([...tell, url])), server);
        await using tomorrow = startTomorrow(url);
        checkTomorrow(JSON.parse(await work.run([...tell, tomorrow.url])));
        expect(await server.api.list()).toEqual([]);
        const outcomes = await drive(row, work, url, "a large region would fill the machine on which tests run");
        expect([...outcomes].filter(([, { kind }]) => kind === "failed")).toEqual([]);
      },
    );
  }
});
