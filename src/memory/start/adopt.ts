/**
 * Rebuilding a region's row from its own file and its proof, for when the journal was lost. The header is hostile data:
 * workers could write it, so it says what the tensors are and nothing else. What nothing proves is kept without a name for a
 * while, so that no byte is lost to a bad guess.
 */

import type { Proof } from "../journal/proof.ts";
import type { RegionRecord } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { scheduleExpiry } from "../regions/expire.ts";
import { defaultModelName } from "../state/books.ts";
import { recoveredLabels } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { KeptFile, Storage } from "../storage/storage.ts";
import { isLong } from "../storage/tensor-files.ts";
import { readContent } from "./content.ts";
import { keepList } from "./lists.ts";
import { ensureModel, reviveRegion } from "./revive.ts";

/**
 * Enters a kept file as a region again, labelled `tensord.recovered`.
 * @param proof what proves its name and owner; undefined if nothing does. Of two proofs of a name the later wins.
 */
export async function adoptRegion(
  store: Store,
  storage: Storage,
  file: KeptFile,
  proof: Proof | undefined,
): Promise<void> {
  const content = readContent(store, storage, file);
  const tensors = await keepList(store, file.token, content.tensors);
  const isSealed = wasSealed(storage, file, proof);
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
    // The proof does not tell: it is an administrator's to give away.
    createdBy: null,
    evictable: false,
    labels: recoveredLabels,
    // Above what its proof tells of, and what a client may know.
    revision: (store.proofs.find(file.token)?.revision ?? 0) + 1,
    storageForm: storage.form,
    format: content.dataOffset === 0 ? "raw" : "safetensors",
    identity: file.identity,
    byteSize: file.byteSize,
    dataOffset: content.dataOffset,
    tensors,
    checksum: null,
    stockWritable: isSealed && file.access === "sealed-stock-writable",
    sealedAt: isSealed ? now : null,
  };
  // What was said of it by its name, which it may have no more, is lost as well.
  if (file.access !== undefined && file.access !== "open") storage.memory.unmark?.(file.token, file.access);
  if (record.name !== null) takeName(store, record.model, record.name, record.version);
  // A row has no room for a long list, wherever it is held today.
  const { tensorFiles } = store;
  store.journal.adoptRegion(
    isLong(tensors) ? { ...record, tensors: tensorFiles.of(file.token, tensors.count) } : record,
  );
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
  // A seal is when it takes the name over.
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
 * A seal sets the mode, then asks for writers, then writes the row, and then the proof: the mode alone proves no seal, and is
 * not believed against a proof that tells of none, so that a group comes back whole. Where nothing proves either, the seal is
 * brought to its end: with a writer it is refused, without one it stands.
 */
function wasSealed(storage: Storage, file: KeptFile, proof: Proof | undefined): boolean {
  if (file.access !== "sealed" && file.access !== "sealed-stock-writable") return false;
  if (proof?.isSealed === false) return false;
  return storage.memory.usage(file.token)?.written === false;
}
