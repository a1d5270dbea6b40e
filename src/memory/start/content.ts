/**
 * What a region's own file says of its tensors, for when a row or a list was lost. The header is hostile data: workers could
 * write it, and it proves neither a name nor an owner.
 */

import { TensordError } from "../error.ts";
import { headerByteSize, parseHeader, type Tensor } from "../layout/layout.ts";
import { readAliases } from "../layout/read-aliases.ts";
import type { Store } from "../state/store.ts";
import type { KeptFile, Storage } from "../storage/storage.ts";

/** What the header says; of a header that does not hold together, one tensor of all the bytes. */
export interface Content {
  readonly tensors: readonly Tensor[];
  readonly dataOffset: number;
}

export function readContent(store: Store, storage: Storage, file: KeptFile): Content {
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
