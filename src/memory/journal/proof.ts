/**
 * What proves a region's name, owner and seal once the journal is lost: a record of fixed size beside it, in a file that no worker
 * can write. Here is its form, in both directions, and pure; the file is `proofs.ts`'s.
 */

import { tokenPattern } from "../naming.ts";
import type { Owner, RegionRecord } from "./region-record.ts";

/** What a proof takes: every bound of a name fits, and none lies across two pages. */
export const proofBytes = 512;

/** Owners that outlive the journal; of a session only its row knows. */
export type ProvenOwner = Exclude<Owner, { readonly kind: "session" }>;

/** Which region a proof is of, and which of its states it tells. */
export interface ProofStamp {
  readonly token: string;
  /** The creation number: of two regions the later has the higher one. */
  readonly key: number;
  readonly revision: number;
}

export interface Proof extends ProofStamp {
  readonly model: string;
  /** The name that it held, or was to take over at its seal. */
  readonly name: string | null;
  readonly isPending: boolean;
  /** Whether its seal was committed; undefined of one from before that was noted. */
  readonly isSealed: boolean | undefined;
  readonly version: string;
  /** Null if a session owned it. */
  readonly owner: ProvenOwner | null;
  readonly expiresAt: number | null;
  readonly createdAt: number;
}

export type Provable = Pick<
  RegionRecord,
  | "token"
  | "key"
  | "revision"
  | "state"
  | "model"
  | "name"
  | "pendingName"
  | "version"
  | "owner"
  | "expiresAt"
  | "createdAt"
>;

/** Byte offsets: a hash of what follows, small numbers of a byte, doubles in little-endian order, then the texts in a row. */
const at = {
  hash: 0,
  form: 8,
  owner: 9,
  isPending: 10,
  modelLength: 11,
  nameLength: 12,
  versionLength: 13,
  seal: 14,
  key: 16,
  revision: 24,
  createdAt: 32,
  expiresAt: 40,
  ttl: 48,
  handoff: 56,
  texts: 64,
} as const;

/** Of this layout. Another one is none that we can read. */
const form = 1;
const tokenLength = 26;
const seals = { unsaid: 0, open: 1, committed: 2 } as const;
const ownerKinds = ["session", "persist", "ttl", "linger"] as const satisfies readonly Owner["kind"][];

/** Where proofs are written: made once, since its views cost more than all that is put into them. */
export class ProofSlot {
  readonly bytes = Buffer.alloc(proofBytes);
  readonly #numbers = new DataView(this.bytes.buffer, this.bytes.byteOffset, proofBytes);
  readonly #hashed = this.bytes.subarray(at.form);

  /** Writes the proof of `record` over all of it. */
  write(record: Provable): void {
    const { bytes } = this;
    const numbers = this.#numbers;
    const { token, model, version, owner } = record;
    const name = record.name ?? record.pendingName ?? "";
    bytes.fill(0);
    bytes[at.form] = form;
    bytes[at.owner] = ownerKinds.indexOf(owner.kind);
    bytes[at.isPending] = record.name === null && name !== "" ? 1 : 0;
    bytes[at.modelLength] = model.length;
    bytes[at.nameLength] = name.length;
    bytes[at.versionLength] = version.length;
    bytes[at.seal] = record.state === "sealed" ? seals.committed : seals.open;
    numbers.setFloat64(at.key, record.key, true);
    numbers.setFloat64(at.revision, record.revision, true);
    numbers.setFloat64(at.createdAt, record.createdAt, true);
    numbers.setFloat64(at.expiresAt, record.expiresAt ?? Number.NaN, true);
    if (owner.kind === "ttl") numbers.setFloat64(at.ttl, owner.ttlMs, true);
    if (owner.kind === "linger") {
      numbers.setFloat64(at.ttl, owner.lingerMs, true);
      numbers.setFloat64(at.handoff, owner.handoffMs, true);
    }
    // ASCII all of them, by their patterns. A call into the runtime costs 1 µs more than this loop, with cold caches.
    const texts = token + model + name + version;
    for (let index = 0; index < texts.length; index++) bytes[at.texts + index] = texts.charCodeAt(index);
    numbers.setBigUint64(at.hash, Bun.hash.xxHash3(this.#hashed), true);
  }
}

/** Whose proof `slot` is, or undefined if it is none, or was torn. */
export function readStamp(slot: Buffer): ProofStamp | undefined {
  if (slot.length < proofBytes || slot[at.form] !== form || slot.readBigUInt64LE(at.hash) !== hashOf(slot)) return;
  const token = slot.toString("latin1", at.texts, at.texts + tokenLength);
  if (!tokenPattern.test(token)) return;
  return { token, key: slot.readDoubleLE(at.key), revision: slot.readDoubleLE(at.revision) };
}

/** The proof in `slot`, or undefined if it is none, or was torn. */
export function readProof(slot: Buffer): Proof | undefined {
  const stamp = readStamp(slot);
  if (stamp === undefined) return;
  const nameAt = at.texts + tokenLength + (slot[at.modelLength] ?? 0);
  const versionAt = nameAt + (slot[at.nameLength] ?? 0);
  const name = slot.toString("latin1", nameAt, versionAt);
  const expiresAt = slot.readDoubleLE(at.expiresAt);
  return {
    ...stamp,
    model: slot.toString("latin1", at.texts + tokenLength, nameAt),
    name: name === "" ? null : name,
    isPending: slot[at.isPending] === 1,
    isSealed: slot[at.seal] === seals.unsaid ? undefined : slot[at.seal] === seals.committed,
    version: slot.toString("latin1", versionAt, versionAt + (slot[at.versionLength] ?? 0)),
    owner: readOwner(slot),
    expiresAt: Number.isNaN(expiresAt) ? null : expiresAt,
    createdAt: slot.readDoubleLE(at.createdAt),
  };
}

function readOwner(slot: Buffer): ProvenOwner | null {
  switch (ownerKinds[slot[at.owner] ?? 0]) {
    case "persist":
      return { kind: "persist" };
    case "ttl":
      return { kind: "ttl", ttlMs: slot.readDoubleLE(at.ttl) };
    case "linger":
      return { kind: "linger", lingerMs: slot.readDoubleLE(at.ttl), handoffMs: slot.readDoubleLE(at.handoff) };
    default:
      return null;
  }
}

function hashOf(slot: Buffer): bigint {
  return Bun.hash.xxHash3(slot.subarray(at.form, proofBytes));
}
