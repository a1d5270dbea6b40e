/**
 * The bytes of a loaded region: copied from its file as they lie there, decompressed, or, of a sharded model, each tensor to its place; and
 * the file looked at once more.
 */

import assert from "node:assert/strict";
import { read as readCallback } from "node:fs";
import { promisify } from "node:util";
import { SystemError, TensordError } from "../memory/error.ts";
import { isOutOfMemory } from "../memory/journal/journal-failure.ts";
import { type Checksum, toChecksum, toChunks } from "../memory/layout/checksum.ts";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import { inTurn } from "../memory/storage/in-turn.ts";
import type { Lane } from "../memory/storage/lane.ts";
import { hugePageBytes, type Writing } from "../memory/storage/storage.ts";
import { type FileLane, type OpenedFile, type OpenPart, pieceNumbers } from "./file-lane.ts";
import type { RangeReader } from "./formats/format.ts";
import { quotePath } from "./formats/refusal.ts";
import { streamContent } from "./formats/stream-content.ts";
import type { ModelPath } from "./source/model-roots.ts";

export type Source = OpenedFile & ModelPath;

/** Of one file: the only one. */
export function fileOf({ files }: Source): OpenPart {
  const [file] = files;
  assert(file !== undefined, "a file is open");
  return file;
}

const readAsync = promisify(readCallback);

/**
 * Writes the data of a region that nobody sees yet.
 * @param onBytes hears of the bytes that are done since the last time.
 * @returns its checksum.
 * @throws TensordError `invalid-model-file` if the file is not what its header says, or changed meanwhile; `io-error`.
 */
export async function fill(
  store: Store,
  files: FileLane,
  source: Source,
  region: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<Checksum> {
  if (source.bring !== undefined) {
    return await source.bring(store, region, onBytes, signal).catch((error: unknown) => {
      throw toFailure(source, error);
    });
  }
  const onChunk = (done: number) => {
    if (done > 0) onBytes(done);
    signal.throwIfAborted();
  };
  const checksum = await copy(store, files, source, region, onChunk).catch(async (error: unknown) => {
    signal.throwIfAborted();
    // A file that is shorter by now is what its reader stumbled over.
    if (!(await files.isSame(source))) throw changed(source);
    throw toFailure(source, error);
  });
  if (!(await files.isSame(source))) throw changed(source);
  store.step("load.filled");
  return checksum;
}

/** @returns the checksum of what was written: of what was read, or, of what was decompressed, as it reads in the region. */
async function copy(
  store: Store,
  files: FileLane,
  source: Source,
  region: Region,
  onChunk: (byteSize: number) => void,
): Promise<Checksum> {
  const { token, dataOffset, byteSize } = region;
  const { bytes } = store.storages.of(region);
  const { compression, pieces } = source;
  if (pieces !== undefined) await place(store, files.copying, { ...source, pieces }, region, onChunk);
  else if (compression === "none") {
    const writing = toWriting(store, region);
    const from = { fd: fileOf(source).fd, byteOffset: dataOffset, isForeign: true, lanes: files.copying, writing };
    return toChecksum(await bytes.fill(token, dataOffset, byteSize, from, onChunk));
  } else await decompress(store, source, region, onChunk);
  return toChecksum(await bytes.hash(token, dataOffset, byteSize, () => onChunk(0)));
}

/** Whether pages of a region come as they are written: of what its reader waits for nobody, so that what is refused is refused soon. */
export function isWritten({ bring, compression }: Source): boolean {
  return bring === undefined && compression === "none";
}

/** What lies ready for regions to come goes before a page is refused. */
function toWriting(store: Store, region: Region): Writing {
  const { latePages } = store.storages.of(region).memory;
  let given = 0;
  return async (write) => {
    const attempt = () => latePages?.write(region.token, region.byteSize, write) ?? write();
    const before = given;
    const written = await attempt().catch(async (error: unknown) => {
      if (!isOutOfMemory(error)) throw error;
      // Another part of the same file may have had it given back meanwhile.
      if (await store.reserve.giveBack()) given += 1;
      if (given === before) throw error;
      return await attempt();
    });
    store.step("load.part-written");
    return written;
  };
}

async function decompress(
  store: Store,
  source: Source,
  region: Region,
  onChunk: (byteSize: number) => void,
): Promise<void> {
  const { token, dataOffset } = region;
  const { bytes } = store.storages.of(region);
  using file = bytes.open(token, "write");
  let at = 0;
  for await (const piece of streamContent(toReader(fileOf(source)), toModelFile(source))) {
    // The header stands there already.
    const data = piece.subarray(Math.max(0, Math.min(piece.length, dataOffset - at)));
    if (data.length > 0) file.write(data, at + piece.length - data.length);
    at += piece.length;
    onChunk(data.length);
  }
}

/** One piece, or a part of one, on its way. */
export interface Piece {
  readonly fd: number;
  readonly byteOffset: number;
  readonly byteSize: number;
  readonly toOffset: number;
}

/** Brings each piece of a sharded model to its place. */
async function place(
  store: Store,
  lanes: readonly Lane[],
  source: Source & { readonly pieces: Float64Array },
  region: Region,
  onChunk: (byteSize: number) => void,
): Promise<void> {
  const { bytes, hugePage } = store.storages.of(region);
  const writing = toWriting(store, region);
  const mappedPageBytes = hugePage === null ? undefined : hugePageBytes[hugePage];
  using file = bytes.open(region.token, "write");
  // Where no header is set apart, it is among the bytes.
  if (region.dataOffset === 0) file.write(source.layout.header, 0);
  await inTurn(lanes, [...toParts(source)], async (lane, _, part) => {
    const job = { kind: "copy", ...part, toFd: file.fd, mappedPageBytes, dropsRead: true } as const;
    await writing(() => lane.run(job));
    onChunk(part.byteSize);
  });
}

/** All bytes of what is not compressed, but for a header that is laid out anew, in parts of which each is one job of a lane. */
export function* toParts(source: Source): Generator<Piece> {
  const { files, layout, pieces = Float64Array.of(0, 0, layout.byteSize, 0) } = source;
  for (let at = 0; at < pieces.length; at += pieceNumbers) {
    const [index = 0, from = 0, size = 0, to = 0] = pieces.subarray(at, at + pieceNumbers);
    const fd = files[index]?.fd;
    assert(fd !== undefined, "a piece is of a file that is open");
    for (const { byteOffset, byteSize } of toChunks(from, size)) {
      yield { fd, byteOffset, byteSize, toOffset: to + byteOffset - from };
    }
  }
}

export function toModelFile({ path, compression, layout }: Source) {
  const { dataOffset, byteSize } = layout;
  return { path, format: "raw", compression, tensors: [], metadata: {}, dataOffset, byteSize } as const;
}

export function toReader({ fd, signature }: OpenPart): RangeReader {
  return {
    byteSize: Number(signature.size),
    async read(byteOffset, wanted) {
      const bytes = new Uint8Array(wanted);
      const { bytesRead } = await readAsync(fd, bytes, 0, wanted, byteOffset);
      return bytes.subarray(0, bytesRead);
    },
  };
}

export function changed({ path }: Source): TensordError {
  return new TensordError("invalid-model-file", `Cannot load ${quotePath(path)}: it changed while it was loaded`, {
    hint: "Load it again once nobody writes to it. Replace a model file by a rename, so that it is whole at any time.",
  });
}

/** What the system says of the file itself; what is said of the region has its words. */
export function toFailure({ path }: Pick<ModelPath, "path">, error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  return new TensordError(
    "io-error",
    `Cannot load ${quotePath(path)}: ${error.message}`,
    { errno: error.code },
    { cause: error },
  );
}
