/**
 * What must hold of an instance at any time when nothing is under way: the books, the files and, once the server is down,
 * the rows tell the same story.
 */

import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { copyFileSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { type Proof, proofBytes, readProof } from "../../src/memory/journal/proof.ts";
import type { Owner } from "../../src/memory/journal/region-record.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { type Instance, listNames, tokenOf } from "./instance.ts";
import { currentMark } from "./instance-content.ts";
import type { TestServer } from "./server.ts";
import type { ListedRegion, Stats } from "./server-api.ts";
import { until } from "./server-wait.ts";

/** Modes as `docs/protocol.md` has them, without the current mark: the sticky bit says sealed. */
export const modes = { open: 0o660, sealed: 0o1440, stockWritable: 0o1660 };
const privateModes = { open: 0o600, sealed: 0o1400 };

/**
 * Holds the running server's books against what lies in the directories.
 * @param foreign names of the test's own that look like the instance's.
 */
export async function checkBooks(server: TestServer, foreign: readonly string[] = []): Promise<ListedRegion[]> {
  const { instance } = server;
  const regions = await listSettled(server);
  const kept = regions
    .filter(({ storage }) => storage.kind === "shm")
    .map(keptName)
    .toSorted();
  expect(readdirSync(instance.keep).toSorted(), "keep/ has the books' regions and no other").toEqual(kept);
  expect(readdirSync(instance.new), "new/ is empty").toEqual([]);
  const standing = regions.filter(({ state }) => state !== "draining");
  const named = standing.filter(({ storage }) => !storage.private);
  const names = [...named.map(({ storage }) => basename(storage.path)), ...foreign, basename(instance.directory)];
  expect(listNames(instance).toSorted(), "every region has its name, and no other has one").toEqual(names.toSorted());
  for (const region of standing) if (region.storage.kind === "shm") checkFile(instance, region, regions);
  checkSums(instance, await server.api.stats(), regions);
  return regions;
}

/**
 * The regions once none is on its way out: what nobody holds goes by itself, and a large file in a Worker, so that for a
 * moment the books know it still.
 */
async function listSettled({ api }: TestServer): Promise<ListedRegion[]> {
  return until("what drains is held by somebody", async () => {
    const regions = await api.list();
    const draining = regions.filter(({ state }) => state === "draining");
    const details = await Promise.all(draining.map(({ id }) => api.find(id)));
    return details.every((region) => region?.in_use === true || region?.drain?.waits_for === "hard-link") && regions;
  });
}

function checkFile(instance: Instance, region: ListedRegion, regions: readonly ListedRegion[]): void {
  const { storage, id, state } = region;
  expect(["open", "sealed"], `${id} is whole`).toContain(state);
  const kept = lstatSync(join(instance.keep, keptName(region)), { bigint: true });
  const named = storage.private ? kept : lstatSync(storage.path, { bigint: true });
  expect(named.isFile()).toBeTrue();
  expect([named.ino, named.dev], `${id} is one file under both names`).toEqual([kept.ino, kept.dev]);
  expect([named.ino.toString(), named.dev.toString()]).toEqual([storage.ino, storage.dev]);
  expect(Number(named.size)).toBe(storage.byte_size);
  const isMarked = (Number(named.mode) & currentMark) !== 0;
  const mode = Number(named.mode & 0o7777n) & ~currentMark;
  const open = storage.private ? privateModes.open : modes.open;
  const sealed = storage.private ? [privateModes.sealed] : [modes.sealed, modes.stockWritable];
  expect(mode, `${id} (${state}) has a mode of its state`).toBeOneOf(state === "open" ? [open] : sealed);
  if (!isMarked) return;
  expect([state, storage.private], `${id} bears the current mark`).toEqual(["sealed", false]);
  const newer =
    region.name === null
      ? []
      : regions.filter(
          ({ model, name, sealed_at: sealedAt }) =>
            model === region.model && name === region.name && (sealedAt ?? "") > (region.sealed_at ?? ""),
        );
  expect(newer, `${id} bears the current mark, and its name means no other`).toEqual([]);
}

/** What the keeper calls it. */
function keptName({ id, storage }: ListedRegion): string {
  return storage.private ? `${tokenOf(id)}.private` : tokenOf(id);
}

function checkSums(instance: Instance, stats: Stats, regions: readonly ListedRegion[]): void {
  const host = hostOf(stats);
  const sum = (list: readonly ListedRegion[]) =>
    list.reduce((total, { id, storage }) => {
      const tensors = lstatSync(join(instance.store, "tensors", tokenOf(id)), { throwIfNoEntry: false })?.size ?? 0;
      const pages = (byteSize: number) => Math.ceil(byteSize / storage.page_size) * storage.page_size;
      return total + pages(storage.byte_size) + pages(tensors);
    }, 0);
  const inState = (state: ListedRegion["state"]) => regions.filter((region) => region.state === state);
  expect(host.used_bytes, "used bytes are those of the standing regions").toBe(
    sum(regions.filter(({ state }) => state !== "draining")),
  );
  expect(host.draining_bytes).toBe(sum(inState("draining")));
  const { creating, open, sealing, sealed, draining } = stats.regions;
  expect({ creating, open, sealing, sealed, draining }).toEqual({
    creating: 0,
    open: inState("open").length,
    sealing: 0,
    sealed: inState("sealed").length,
    draining: inState("draining").length,
  });
}

interface RegionRow {
  readonly key: number;
  readonly state: string;
  readonly model: string;
  readonly name: string | null;
  readonly pending_name: string | null;
  readonly version: string;
  readonly owner: string;
  readonly record: string;
}

interface StoredRecord {
  readonly token: string;
  readonly storageKind: string;
}

/** What the keeper has of a row's region: of one in memfd nothing. */
function toKeptNames({ token, storageKind }: StoredRecord): string[] {
  if (storageKind.startsWith("memfd")) return [];
  return [storageKind === "shm-private" ? `${token}.private` : token];
}

/**
 * Holds the rows against the files: no row without a file, no file without a row, and its proof. Of a copy, since a server that
 * runs lets nobody read its journal; it must have nothing to do meanwhile.
 */
export function checkRows(instance: Instance): void {
  const copy = mkdtempSync(join(tmpdir(), "tensord-test-rows-"));
  for (const name of readdirSync(instance.store).filter((name) => name.startsWith("tensord.sqlite"))) {
    copyFileSync(join(instance.store, name), join(copy, name));
  }
  const database = new Database(join(copy, "tensord.sqlite"), { readwrite: true });
  try {
    const rows = database.query("SELECT * FROM regions ORDER BY key").all() as RegionRow[];
    const lists = database.query("SELECT region FROM tensors ORDER BY region").all() as { region: number }[];
    expect(
      lists.map(({ region }) => region),
      "tensors have their region's row, each row its tensors",
    ).toEqual(rows.map(({ key }) => key));
    const files = rows.flatMap(({ record }) => toKeptNames(JSON.parse(record) as StoredRecord)).toSorted();
    expect(readdirSync(instance.keep).toSorted(), "each file has its row, each row its file").toEqual(files);
    for (const { state } of rows) expect(["open", "sealed", "draining"]).toContain(state);
    const proven = rows.filter(({ state }) => state !== "draining").map(toProof);
    expect(readProofs(instance).toSorted(byToken), "each region that stands is proved as its row says").toEqual(
      proven.toSorted(byToken),
    );
  } finally {
    database.close();
    rmSync(copy, { recursive: true });
  }
}

/** What proves names and owners, as the file has it. */
export function readProofs({ directory }: Instance): Proof[] {
  const bytes = readFileSync(join(directory, "proofs"));
  const slots = Array.from({ length: bytes.length / proofBytes }, (_, at) => at * proofBytes);
  const proofs = slots.map((at) => readProof(bytes.subarray(at, at + proofBytes)));
  return proofs.filter((proof) => proof !== undefined);
}

function toProof({
  key,
  state,
  model,
  name,
  pending_name: pendingName,
  version,
  owner: ownerText,
  record,
}: RegionRow): Proof {
  const { token, revision, createdAt, expiresAt } = JSON.parse(record) as Proof;
  const owner = JSON.parse(ownerText) as Owner;
  const asked = {
    model,
    name: name ?? pendingName,
    isPending: name === null && pendingName !== null,
    version,
    isSealed: state === "sealed",
  };
  return { token, key, revision, ...asked, owner: owner.kind === "session" ? null : owner, expiresAt, createdAt };
}

function byToken(one: Proof, other: Proof): number {
  return one.token < other.token ? -1 : 1;
}

/** The `__metadata__` of the region's own header, read as any safetensors reader would. */
export function readMetadata({ storage }: ListedRegion): Record<string, string> {
  const bytes = readFileSync(storage.path);
  const byteSize = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + byteSize)) as { __metadata__: Record<string, string> };
  return header.__metadata__;
}
