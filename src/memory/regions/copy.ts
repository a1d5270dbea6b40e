/**
 * The bytes of a sealed region in a new one, of whatever storage: copied by the server, read back, compared, and sealed with their
 * checksum before anybody sees the new region.
 */

import { TensordError } from "../error.ts";
import { describe, idOf } from "../journal/region-record.ts";
import { type Checksum, toChecksum } from "../layout/checksum.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { DataFile } from "../storage/data-file.ts";
import { resized } from "../storage/resized.ts";
import { type CreateRequest, createRegion } from "./create.ts";

/** What the copy is to be. */
export type CopyTarget = Omit<CreateRequest, "tensors" | "fill">;

/** The bytes that a copy of `source` goes through: it writes each once, and reads it back. */
export function copyWork(source: Region): number {
  return 2 * (source.byteSize - source.dataOffset);
}

/**
 * Copies `source`, which is leased until the end.
 * @param onBytes hears of the bytes that are done since the last time.
 * @returns the copy, or with `if_exists: attach` the region that has the name.
 * @throws TensordError `region-not-sealed` and its like, what a creation is refused with, `io-error` if the bytes of either region
 * are not what they were, what `signal` aborts with. Nothing of the copy is left then.
 */
export async function copyRegion(
  store: Store,
  source: Region,
  target: CopyTarget,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<{ readonly region: Region; readonly created: boolean }> {
  nextState(source, "copy");
  store.books.touch(source, store.now());
  // Its lock is the lease, and ends with this process.
  using file = store.storages.of(source).bytes.open(source.token, "read");
  checkSize(source, file);
  store.step("copy.source-leased");
  const tensors = await store.layouts.askAgain(source.tensors);
  const fill = (region: Region, stop: AbortSignal) => fillFrom(store, source, file, region, onBytes, stop);
  return await createRegion(store, { ...target, tensors, fill }, signal);
}

async function fillFrom(
  store: Store,
  source: Region,
  file: DataFile,
  region: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<Checksum> {
  const { token, dataOffset, byteSize } = region;
  checkLayout(source, region);
  const { bytes } = store.storages.of(region);
  const from = { fd: file.fd, byteOffset: source.dataOffset, isForeign: false };
  const onChunk = (done: number) => {
    if (done > 0) onBytes(done);
    signal.throwIfAborted();
  };
  const written = await bytes.fill(token, dataOffset, byteSize, from, onChunk);
  checkSize(source, file);
  const expected = toChecksum(written);
  if (source.checksum !== null && source.checksum.value !== expected.value) {
    const state = `its checksum is ${expected.value}, and was ${source.checksum.value} at its seal`;
    throw differs(`Cannot copy ${describe(source)}: ${state}`, source);
  }
  store.step("copy.filled");
  const read = await bytes.hash(token, dataOffset, byteSize, onChunk);
  store.step("copy.read-back");
  const actual = toChecksum(read);
  if (actual.value === expected.value) return actual;
  throw differs(`Cannot copy ${describe(source)}: the copy reads ${actual.value}, want ${expected.value}`, source);
}

/** A file of ours lies as it is laid out today; one that was adopted may not. */
function checkLayout(source: Region, region: Region): void {
  const have = source.byteSize - source.dataOffset;
  const want = region.byteSize - region.dataOffset;
  const isSame = have === want && lies(source) === lies(region);
  if (isSame) return;
  throw new TensordError(
    "validation-failed",
    `Cannot copy ${describe(source)}: its tensors lie in an order of its own`,
    {
      region: idOf(source),
      hint: "Create a region, and copy its tensors into it one by one.",
    },
  );
}

/** Where each tensor begins in the data. */
function lies({ tensors, dataOffset }: Region): string {
  const text = Buffer.from(tensors.read(0, tensors.byteSize)).toString("utf8");
  const offsets = text.matchAll(/"byte_offset":(\d+),"byte_size":\d+,"aligned"/g);
  return Array.from(offsets, ([, offset]) => Number(offset) - dataOffset).join();
}

function checkSize(source: Region, file: DataFile): void {
  if (file.byteSize !== source.byteSize) {
    throw resized(`Cannot copy ${describe(source)}`, file.byteSize, source.byteSize, { region: idOf(source) });
  }
}

function differs(detail: string, source: Region): TensordError {
  return new TensordError("io-error", detail, {
    region: idOf(source),
    hint: "Somebody wrote to a sealed region, or the machine's memory is at fault: create the source anew, and copy that.",
  });
}
