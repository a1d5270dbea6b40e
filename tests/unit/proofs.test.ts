/** The file of proofs: dense, whole after any cut, and nothing that others could have written. */

import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { ProofSlot, type Provable, proofBytes, readProof } from "../../src/memory/journal/proof.ts";
import { Proofs } from "../../src/memory/journal/proofs.ts";
import type { Owner } from "../../src/memory/journal/region-record.ts";
import { createToken } from "../../src/memory/naming.ts";
import { testWith } from "../harness/instance-needs.ts";

let folder = "";
let path = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tensord-test-"));
  path = join(folder, "proofs");
});

afterEach(() => rmSync(folder, { recursive: true }));

let lastKey = 0;

function toRecord(record: Partial<Provable> = {}): Provable {
  lastKey += 1;
  const name = `n${lastKey}`;
  const owner = { kind: "persist" } as const;
  const rest = { model: "default", version: "", pendingName: null, owner, expiresAt: null, createdAt: 1e12 };
  return { token: createToken(), key: lastKey, revision: 1, state: "open", name, ...rest, ...record };
}

function open<Result>(use: (proofs: Proofs) => Result): Result {
  using proofs = new Proofs(path);
  return use(proofs);
}

const text = (characters: string, minLength: number) =>
  fc.string({ unit: fc.constantFrom(...characters), minLength, maxLength: 128 });
const name = text("aZ0._-", 1);
const ms = fc.integer({ min: 0, max: 2 ** 53 - 1 });
const owner = fc.oneof<fc.Arbitrary<Owner>[]>(
  fc.constant({ kind: "persist" }),
  fc.record({ kind: fc.constant("ttl"), ttlMs: ms }),
  fc.record({ kind: fc.constant("linger"), lingerMs: ms, handoffMs: ms }),
  fc.constant({ kind: "session", session: "ses_aaaaaaaaaaaaaaaaaaaaaaaaaa" }),
);
const record: fc.Arbitrary<Provable> = fc.record({
  token: fc.string({ unit: fc.constantFrom(..."abz27"), minLength: 26, maxLength: 26 }),
  key: ms,
  revision: ms,
  state: fc.constantFrom("open", "sealing", "sealed"),
  model: name,
  name: fc.option(name),
  pendingName: fc.option(name),
  version: text("aZ0._-", 0),
  owner,
  expiresAt: fc.option(ms),
  createdAt: ms,
});

test("a proof says what was proved, with every name at its longest, and a proof of which a bit is wrong says nothing", () => {
  fc.assert(
    fc.property(record, fc.nat(proofBytes - 1), fc.nat(7), (asked, byte, bit) => {
      const written = new ProofSlot();
      written.bytes.fill(0xff);
      written.write(asked);
      const slot = written.bytes;
      const { name, pendingName, owner, state, ...rest } = asked;
      expect(readProof(slot)).toEqual({
        ...rest,
        name: name ?? pendingName,
        isPending: name === null && pendingName !== null,
        isSealed: state === "sealed",
        owner: owner.kind === "session" ? null : owner,
      });
      slot[byte] = (slot[byte] ?? 0) ^ (1 << bit);
      expect(readProof(slot)).toBeUndefined();
    }),
  );
});

test("whatever was put and removed, the file holds what stands and no more, and says so over the next opening", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(9), fc.boolean()), { maxLength: 60 }), (deeds) => {
      rmSync(path, { force: true });
      const records = Array.from({ length: 10 }, () => toRecord());
      const standing = new Map<string, Provable>();
      using proofs = new Proofs(path);
      for (const [at, isPut] of deeds) {
        const old = records[at] as Provable;
        const record = { ...old, revision: old.revision + 1 };
        records[at] = record;
        if (isPut) standing.set(record.token, record);
        else standing.delete(record.token);
        if (isPut) proofs.put(record);
        else proofs.remove(record.token);
      }
      expect(statSync(path).size).toBe(standing.size * proofBytes);
      using again = new Proofs(path);
      for (const one of [proofs, again]) {
        for (const { token } of records)
          expect(one.find(token)?.revision).toBe(standing.get(token)?.revision as number);
      }
    }),
    { numRuns: 50 },
  );
});

test("an opening drops what is torn, doubled or cut, and loses no other proof", () => {
  const records = Array.from({ length: 6 }, () => toRecord());
  open((proofs) => {
    for (const record of records) proofs.put(record);
  });
  const bytes = readFileSync(path);
  const torn = Buffer.from(bytes).fill(0, proofBytes + 100, proofBytes + 200);
  const doubled = Buffer.concat([
    bytes.subarray(0, proofBytes),
    torn,
    Buffer.alloc(proofBytes),
    bytes.subarray(0, 700),
  ]);
  writeFileSync(path, doubled);
  open((proofs) => {
    expect(records.map(({ token }) => proofs.find(token)?.key)).toEqual(
      records.map(({ key }, at) => (at === 1 ? (undefined as never) : key)),
    );
    expect(statSync(path).size).toBe(5 * proofBytes);
  });
  truncateSync(path, 3 * proofBytes + 1);
  open((proofs) => expect(records.filter(({ token }) => proofs.find(token) !== undefined)).toHaveLength(3));
});

test("somebody who cuts the file while it is open costs what he cut, and mixes nothing up", () => {
  const [one, two, three] = [toRecord(), toRecord(), toRecord()];
  using proofs = new Proofs(path);
  for (const record of [one, two, three]) proofs.put(record);
  truncateSync(path, proofBytes);
  proofs.remove(one.token);
  for (const { token } of [one, two, three]) expect(proofs.find(token)).toBeUndefined();
  const four = toRecord();
  proofs.put(four);
  proofs.remove(three.token);
  expect(proofs.find(four.token)?.key).toBe(four.key);
  proofs.put({ ...two, revision: 7 });
  expect(proofs.find(two.token)?.revision).toBe(7);
  open((again) => expect(again.find(two.token)?.revision).toBe(7));
});

test("settling proves what stands as its row says, and nothing else", () => {
  const [same, changed, gone, absent, added] = [toRecord(), toRecord(), toRecord(), toRecord(), toRecord()];
  open((proofs) => {
    for (const record of [same, changed, gone, absent]) proofs.put(record);
  });
  open((proofs) => {
    expect(proofs.isNewer({ ...changed, revision: 0 })).toBeTrue();
    expect([proofs.isNewer(changed), proofs.isNewer({ ...changed, key: 0, revision: 0 })]).toEqual([false, false]);
    const now = { ...changed, name: "other", revision: 0 };
    expect(proofs.settle([same, now, added], (token) => token !== gone.token)).toEqual({ missing: 0 });
    expect(proofs.find(changed.token)?.name).toBe("other");
    for (const { token, key } of [same, added, absent]) expect(proofs.find(token)?.key).toBe(key);
    expect(proofs.find(gone.token)).toBeUndefined();
  });
});

for (const [how, forge, isRoots] of [
  ["may write by its mode", (forged: string) => chmodSync(forged, 0o620), false],
  ["owns", (forged: string) => chownSync(forged, 65534, 65534), true],
  [
    "made a link of",
    (forged: string) => {
      copyFileSync(forged, `${forged}.theirs`);
      rmSync(forged);
      symlinkSync(`${forged}.theirs`, forged);
    },
    false,
  ],
  [
    "made a directory of",
    (forged: string) => {
      rmSync(forged);
      mkdirSync(join(forged, "in it"), { recursive: true });
    },
    false,
  ],
] as const) {
  const needs = isRoots && process.getuid?.() !== 0 ? "needs root, to give a file away" : undefined;
  testWith(needs)(`a file that another user ${how} proves nothing, and is made anew`, async () => {
    const record = toRecord();
    open((proofs) => proofs.put(record));
    forge(path);
    using proofs = new Proofs(path);
    expect(proofs.distrust).toBeString();
    expect(proofs.find(record.token)).toBeUndefined();
    proofs.put(record);
    const { mode, uid } = statSync(path);
    expect([mode & 0o7777, uid]).toEqual([0o600, process.getuid?.() ?? 0]);
    expect(open((again) => [again.distrust, again.find(record.token)?.key])).toEqual([undefined, record.key]);
  });
}

test("a file that others could only read is ours alone again, and is believed", () => {
  const record = toRecord();
  open((proofs) => proofs.put(record));
  chmodSync(path, 0o644);
  expect(open((proofs) => [proofs.distrust, proofs.find(record.token)?.key])).toEqual([undefined, record.key]);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});
