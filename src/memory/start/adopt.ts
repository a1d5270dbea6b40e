/**
 * Rebuilding a region's row from its own file, for when the journal was lost. The header is hostile data: workers could
 * write it. What does not hold together is kept without a name, so that no byte is lost to a bad guess.
 */

import { TensordError } from "../error.ts";
import type { RegionRecord } from "../journal/region-record.ts";
import { headerByteSize, parseHeader, type Tensor } from "../layout/layout.ts";
import { readAliases } from "../layout/read-aliases.ts";
import { Tensors } from "../layout/tensors.ts";
import { limits } from "../limits.ts";
import { namePattern } from "../naming.ts";
import { defaultModelName } from "../state/books.ts";
import type { Store } from "../state/store.ts";
import type { KeptFile, Storage } from "../storage/storage.ts";
import { ensureModel, reviveRegion } from "./revive.ts";

/** Enters a kept file as a region again, labelled `tensord.recovered`. */
export function adoptRegion(store: Store, storage: Storage, file: KeptFile): void {
  const content = readContent(store, storage, file);
  const model = content.model ?? defaultModelName;
  const isFree =
    content.name !== undefined &&
    ensureModel(store, model).names.get(content.name, content.version ?? "") === undefined;
  const name = isFree ? (content.name ?? null) : null;
  const isSealed = wasSealed(storage, file);
  const now = store.now();
  const record: RegionRecord = {
    key: store.books.nextKey(),
    token: file.token,
    model,
    name,
    pendingName: null,
    formerName: null,
    state: isSealed ? "sealed" : "open",
    reason: null,
    // Its owner is not in the file. A name can be found again and deleted; what has none ends by itself.
    owner: name === null ? { kind: "ttl", ttlMs: limits.recoveredTtlMs } : { kind: "persist" },
    expiresAt: name === null ? now + limits.recoveredTtlMs : null,
    session: null,
    evictable: false,
    labels: { "tensord.recovered": "true" },
    revision: 1,
    version: content.version ?? "",
    storageKind: storage.kind,
    format: content.dataOffset === 0 ? "raw" : "safetensors",
    identity: file.identity,
    byteSize: file.byteSize,
    dataOffset: content.dataOffset,
    tensors: Tensors.of(content.tensors),
    checksum: null,
    stockWritable: isSealed && file.access === "sealed-stock-writable",
    createdAt: now,
    sealedAt: isSealed ? now : null,
  };
  store.journal.adoptRegion(record);
  reviveRegion(store, record, file);
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
  readonly model?: string;
  readonly name?: string;
  readonly version?: string;
}

function readContent(store: Store, storage: Storage, file: KeptFile): Content {
  try {
    const size = headerByteSize(storage.bytes.readPrefix(file.token, 8), file.byteSize);
    const { tensors, metadata, dataOffset } = parseHeader(storage.bytes.readPrefix(file.token, size), file.byteSize);
    const model = metadata["tensord.model"] ?? "";
    const name = metadata["tensord.name"] ?? "";
    const version = metadata["tensord.version"] ?? "";
    return {
      tensors: [...tensors, ...aliasesOf(store, file, tensors, metadata)],
      dataOffset,
      ...(namePattern.test(model) ? { model } : {}),
      ...(namePattern.test(name) ? { name } : {}),
      ...(namePattern.test(version) ? { version } : {}),
    };
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
