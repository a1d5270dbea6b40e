/**
 * Long lists of tensors at a start: written for what is adopted, given back by the region's own header where the file is
 * gone, removed where no row stands for them. A full file system keeps no start from coming up: a list is then held in
 * memory, and the next start tries again.
 */

import { TensordError } from "../error.ts";
import { isOutOfMemory } from "../journal/journal-failure.ts";
import { describe, type RegionRecord } from "../journal/region-record.ts";
import type { Tensor } from "../layout/layout.ts";
import { toTensorIndex } from "../layout/tensor-index.ts";
import { type TensorList, Tensors } from "../layout/tensors.ts";
import { hasEnded } from "../state/lifecycle.ts";
import type { Store } from "../state/store.ts";
import type { KeptFile, Storage } from "../storage/storage.ts";
import { isLong, TensorFile } from "../storage/tensor-files.ts";
import { readContent } from "./content.ts";

/** The list of these tensors, in a file if it is long. */
export async function keepList(store: Store, token: string, tensors: readonly Tensor[]): Promise<TensorList> {
  const list = Tensors.of(tensors);
  if (!isLong(list)) return list;
  try {
    return await store.tensorFiles.write(token, list, toTensorIndex(list));
  } catch (error) {
    if (!isOutOfMemory(error) && !(error instanceof TensordError && error.code === "out-of-inodes")) throw error;
    store.warn(`Cannot keep the list of ${list.count} tensors of ${token} in a file; it is held in memory`, error);
    return list;
  }
}

/** The list of a region that has a row, whatever became of its file. */
export async function findList(
  store: Store,
  storage: Storage,
  record: RegionRecord,
  file: KeptFile,
): Promise<TensorList> {
  const { tensors, token, dataOffset, byteSize } = record;
  if (!(tensors instanceof TensorFile) || tensors.isWhole()) return tensors;
  // Nobody asks any more what is in it.
  if (hasEnded(record.state)) return Tensors.none;
  const content = readContent(store, storage, file);
  if (content.tensors.length === tensors.count && content.dataOffset === dataOffset) {
    store.warn(`The list of tensors of ${describe(record)} was lost; its header gives it back`, undefined);
    return await keepList(store, token, content.tensors);
  }
  const why = `its header has ${content.tensors.length} of ${tensors.count} tensors, and its data begins elsewhere`;
  store.warn(`The list of tensors of ${describe(record)} was lost, and ${why}: it has one tensor now`, undefined);
  const dataBytes = byteSize - dataOffset;
  const shape = [dataBytes];
  return Tensors.of([{ name: "data", dtype: "U8", shape, byteOffset: dataOffset, byteSize: dataBytes, aligned: true }]);
}

/** Removes lists that were written for a region which the server died before it entered, or just after it went. */
export async function sweepLists(store: Store, isKnown: (token: string) => boolean): Promise<void> {
  for (const token of store.tensorFiles.tokens()) {
    if (isKnown(token)) continue;
    try {
      await store.tensorFiles.remove(token);
    } catch (error) {
      store.warn(
        `Cannot remove the list of tensors of ${token}, which is no region's; the next start tries again`,
        error,
      );
    }
  }
}
