/**
 * Rebuilding a region's row from its own file and its proof, for when the journal was lost. The header is hostile data:
 * workers could write it, so it says what the tensors are and nothing else. What nothing proves is kept without a name for a
 * while, so that no byte is lost to a bad guess.
 */

import { TensordError } from "../error.ts";
import type { Proof } from "../journal/proof.ts";
import type { RegionRecord } from "../journal/region-record.ts";
import { headerByteSize, parseHeader, type Tensor } from "../layout/layout.ts";
import { readAliases } from "../layout/read-aliases.ts";
import { Tensors } from "../layout/tensors.ts";
import { limits } from "../limits.ts";
import { scheduleExpiry } from "../regions/expire.ts";
import { defaultModelName } from "../state/books.ts";
import type { Store } from "../state/store.ts";
import type { KeptFile, Storage } from "../storage/storage.ts";
import { ensureModel, reviveRegion } from "./revive.ts";

/**
 * Enters a kept file as a region again, labelled `tensord.recovered`.
 * @param proof what proves its name and owner; undefined if nothing does. Of two proofs of a name the later wins.
 */
export function adoptRegion(store: Store, storage: Storage, file: KeptFile, proof: Proof | undefined): void {
  const content = readContent(store, storage, file);
  const isSealed = wasSealed(storage, file);
  const now = store.now();
  const claims = toClaims(store, proof, isSealed);
  const record: RegionRecord = {
    key: store.books.nextKey(),
    token: file.token,
    ...claims,
    formerName: null,
    state: isSealed ? "sealed" : "open",
    reason: null,
    session: null,
    evictable: false,
    labels: { "tensord.recovered": "true" },
    // Above what its proof tells of, and what a client may know.
    revision: (store.proofs.find(file.token)?.revision ?? 0) + 1,
    storageKind: storage.kind,
    format: content.dataOffset === 0 ? "raw" : "safetensors",
    identity: file.identity,
    byteSize: file.byteSize,
    dataOffset: content.dataOffset,
    tensors: Tensors.of(content.tensors),
    checksum: null,
    stockWritable: isSealed && file.access === "sealed-stock-writable",
    sealedAt: isSealed ? now : null,
  };
  if (record.name !== null) takeName(store, record.model, record.name, record.version);
  store.journal.adoptRegion(record);
  reviveRegion(store, record, file);
}

type Claims = Pick<RegionRecord, "model" | "name" | "pendingName" | "version" | "owner" | "expiresAt" | "createdAt">;

function toClaims(store: Store, proof: Proof | undefined, isSealed: boolean): Claims {
  const now = store.now();
  const recovered = {
    owner: { kind: "ttl", ttlMs: limits.recoveredTtlMs },
    expiresAt: now + limits.recoveredTtlMs,
  } as const;
  if (proof === undefined) {
    return { model: defaultModelName, name: null, pendingName: null, version: "", createdAt: now, ...recovered };
  }
  const { model, name, version, owner, expiresAt, createdAt } = proof;
  // A seal that was under way is brought to its end, and that is when it takes the name over.
  const isPending = proof.isPending && !isSealed;
  return {
    model,
    name: isPending ? null : name,
    pendingName: isPending ? name : null,
    version,
    createdAt,
    // Its session went with the journal, and whoever maps it may be at work.
    ...(owner === null ? recovered : { owner, expiresAt: owner.kind === "ttl" ? expiresAt : null }),
  };
}

/** Who holds the name came before: it was replaced, and that was lost. It keeps its bytes for whoever maps it. */
function takeName(store: Store, model: string, name: string, version: string): void {
  const holder = ensureModel(store, model).names.get(name, version);
  if (holder === undefined) return;
  const expiresAt = store.now() + limits.recoveredTtlMs;
  const owner = { kind: "ttl", ttlMs: limits.recoveredTtlMs } as const;
  store.change("change.journaled", [holder, { name: null, owner, expiresAt, session: null }]);
  scheduleExpiry(store, holder);
}

/**
 * A seal sets the mode, then asks for writers, then writes the row: the mode alone proves no seal. Nobody was told that
 * this one failed, so it is brought to its end: with a writer it is refused, without one it stands.
 */
function wasSealed(storage: Storage, file: KeptFile): boolean {
  if (file.access !== "sealed" && file.access !== "sealed-stock-writable") return false;
  return storage.memory.usage(file.token)?.written === false;
}

interface Content {
  readonly tensors: readonly Tensor[];
  readonly dataOffset: number;
}

function readContent(store: Store, storage: Storage, file: KeptFile): Content {
  try {
    const size = headerByteSize(storage.bytes.readPrefix(file.token, 8), file.byteSize);
    const { tensors, metadata, dataOffset } = parseHeader(storage.bytes.readPrefix(file.token, size), file.byteSize);
    return { tensors: [...tensors, ...aliasesOf(store, file, tensors, metadata)], dataOffset };
  } catch (error) {
    if (!(error instanceof TensordError)) throw error;
    store.warn(`Cannot read the header of ${file.token}; it is kept as plain bytes`, error);
    const tensor = {
      name: "data",
      dtype: "U8",
      shape: [file.byteSize],
      byteOffset: 0,
      byteSize: file.byteSize,
    } as const;
    return { tensors: [{ ...tensor, aligned: true }], dataOffset: 0 };
  }
}

/** Their bytes are other tensors', so what cannot be read of them is no reason to give those up. */
function aliasesOf(store: Store, file: KeptFile, ...content: Parameters<typeof readAliases>): readonly Tensor[] {
  try {
    return readAliases(...content);
  } catch (error) {
    if (!(error instanceof TensordError)) throw error;
    store.warn(`Cannot bring back the aliases of ${file.token}; its other tensors are back`, error);
    return [];
  }
}
