/** Whether a file has the bytes of a region that stands: read on both sides and held against each other, up to the first that differs. */

import { setImmediate } from "node:timers/promises";
import { limits } from "../memory/limits.ts";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import type { DataFile } from "../memory/storage/data-file.ts";
import { inTurn } from "../memory/storage/in-turn.ts";
import type { FileLane } from "./file-lane.ts";
import { changed, fileOf, type Piece, type Source, toFailure, toModelFile, toParts, toReader } from "./fill.ts";
import { streamContent } from "./formats/stream-content.ts";
import { spread } from "./spread.ts";

/**
 * Compares all bytes. The region is leased until the end.
 * @param region one that stands, in host memory, of as many bytes as `source` would take.
 * @param onBytes hears of the bytes that were compared since the last time.
 * @throws TensordError `invalid-model-file` if the file changed meanwhile, `io-error`; what `signal` aborts with.
 */
export async function compare(
  store: Store,
  files: FileLane,
  source: Source,
  region: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<boolean> {
  // Its lock is the lease.
  using file = store.storages.of(region).bytes.open(region.token, "read");
  if (file.byteSize !== region.byteSize || !(await hasAt(file, 0, source.layout.header))) return false;
  const same = await compareData(files, source, file, region, onBytes, signal).catch(async (error: unknown) => {
    signal.throwIfAborted();
    if (!(await files.isSame(source))) throw changed(source);
    throw toFailure(source, error);
  });
  if (!(await files.isSame(source))) throw changed(source);
  store.step("load.compared");
  return same;
}

async function compareData(
  files: FileLane,
  source: Source,
  file: DataFile,
  { dataOffset, byteSize }: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<boolean> {
  // Its Worker hears of the signal itself.
  if (source.compare !== undefined) return await source.compare(file.fd, dataOffset, byteSize, onBytes, signal);
  const onChunk = (done: number) => {
    onBytes(done);
    signal.throwIfAborted();
  };
  if (source.compression === "none") return await compareParts(files, toParts(source), file, onChunk);
  let at = 0;
  for await (const piece of streamContent(toReader(fileOf(source)), toModelFile(source))) {
    if (!(await hasAt(file, at, piece))) return false;
    at += piece.length;
    onChunk(piece.length);
  }
  return at === byteSize;
}

/** A part at a time by each lane. */
async function compareParts(
  { copying }: FileLane,
  parts: Iterable<Piece>,
  { fd: otherFd }: DataFile,
  onChunk: (byteSize: number) => void,
): Promise<boolean> {
  let same = true;
  await inTurn(copying, [...spread([...parts])], async (lane, _, { toOffset: otherOffset, ...part }) => {
    if (!same) return;
    const job = { kind: "compare", ...part, otherFd, otherOffset, dropsRead: true } as const;
    if ((await lane.run(job)) === 0n) same = false;
    onChunk(part.byteSize);
  });
  return same;
}

/** On the event loop, a slice in each turn, since a header may be of megabytes; what is not there is not equal. */
async function hasAt(file: DataFile, byteOffset: number, bytes: Uint8Array): Promise<boolean> {
  for (let at = 0; at < bytes.length; at += limits.sliceBytes) {
    if (at > 0) await setImmediate();
    const want = bytes.subarray(at, at + limits.sliceBytes);
    if (Buffer.compare(file.read(byteOffset + at, want.length), want) !== 0) return false;
  }
  return true;
}
