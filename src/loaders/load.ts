/**
 * A model file becomes a region, byte for byte, as an operation: opened below its root, checked against what its header says, copied,
 * looked at once more, and committed sealed. Which build of the name it is, the file's state says, so that one file is
 * loaded once, and a changed one stands beside what it was.
 */

import { read as readCallback } from "node:fs";
import { promisify } from "node:util";
import { SystemError, TensordError } from "../memory/error.ts";
import { idOf } from "../memory/journal/region-record.ts";
import { type Checksum, toChecksum } from "../memory/layout/checksum.ts";
import { findRequested, startOperation } from "../memory/operations/run.ts";
import { toOutOfDescriptors } from "../memory/os/descriptors.ts";
import { type CreateRequest, createRegion } from "../memory/regions/create.ts";
import type { Operation } from "../memory/state/operation.ts";
import { isRecovered, type Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import { fileLabel, toFileLabel } from "./file-label.ts";
import type { FileLane, OpenedFile, WantedFormat } from "./file-lane.ts";
import type { RangeReader } from "./formats/format.ts";
import { quotePath } from "./formats/refusal.ts";
import { streamContent } from "./formats/stream-content.ts";
import type { ModelPath } from "./source/model-roots.ts";

/** What the region is to be. */
export interface LoadTarget extends Omit<CreateRequest, "tensors" | "layout" | "fill" | "version"> {
  /** Undefined: the file's state says it. */
  readonly version: string | undefined;
}

const readAsync = promisify(readCallback);

/**
 * Begins to load `file`. How it goes wrong later, the operation says.
 * @returns it, or the one that was begun under the same key by the same caller.
 * @throws TensordError `model-not-found`, `too-many-requests`, `shutting-down`.
 */
export function startLoad(
  store: Store,
  files: FileLane,
  file: ModelPath,
  format: WantedFormat,
  target: LoadTarget,
  requestKey: string | null,
): Operation {
  const { model, createdBy } = target;
  const known = findRequested(store, { requestKey, createdBy });
  if (known !== undefined) return known;
  store.books.model(model);
  const request = { kind: "load", model, createdBy, requestKey, source: file.path, totalBytes: 0 } as const;
  return startOperation(store, request, async (onBytes, signal, setTotal) => {
    const opened = await files.open(file, format).catch((error: unknown) => {
      throw toOutOfDescriptors(error) ?? toFailure(file, error);
    });
    try {
      store.step("load.opened");
      setTotal(opened.layout.byteSize);
      return idOf(await load(store, files, { ...file, ...opened }, target, onBytes, signal));
    } finally {
      await files.close(opened);
    }
  });
}

type Source = OpenedFile & Pick<ModelPath, "path">;

async function load(
  store: Store,
  files: FileLane,
  source: Source,
  target: LoadTarget,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<Region> {
  const { hasHeader } = store.storages.get(target.storage);
  const { layout, tensors } = source;
  const version = target.version ?? source.key;
  const request = {
    ...target,
    version,
    ifExists: (await isLessRecovered(store, { ...target, version, tensors })) ? ("replace" as const) : target.ifExists,
    labels: { [fileLabel]: toFileLabel(source.path), ...target.labels },
    tensors,
    // Where no header is set apart, it is among the bytes.
    layout: hasHeader ? layout : { ...layout, header: new Uint8Array(0), dataOffset: 0 },
    fill: (region: Region, stop: AbortSignal) => fill(store, files, source, region, onBytes, stop),
  };
  return (await createRegion(store, request, signal)).region;
}

/** Whether the name is held by what came back without its row as plain bytes, of which the file knows more. */
async function isLessRecovered(
  store: Store,
  { model, name, version, tensors }: Pick<CreateRequest, "model" | "name" | "version" | "tensors">,
): Promise<boolean> {
  const holder = name === null ? undefined : store.books.model(model).names.get(name, version);
  if (holder === undefined || !isRecovered(holder) || holder.format !== "raw") return false;
  return (await store.layouts.compare(tensors, holder.tensors)) !== undefined;
}

async function fill(
  store: Store,
  files: FileLane,
  source: Source,
  region: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<Checksum> {
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
  const { fd, compression } = source;
  if (compression === "none") {
    const from = { fd, byteOffset: dataOffset, isForeign: true, lanes: files.copying };
    return toChecksum(await bytes.fill(token, dataOffset, byteSize, from, onChunk));
  }
  using file = bytes.open(token, "write");
  let at = 0;
  for await (const piece of streamContent(toReader(source), toModelFile(source))) {
    // The header stands there already.
    const data = piece.subarray(Math.max(0, Math.min(piece.length, dataOffset - at)));
    if (data.length > 0) file.write(data, at + piece.length - data.length);
    at += piece.length;
    onChunk(data.length);
  }
  return toChecksum(await bytes.hash(token, dataOffset, byteSize, () => onChunk(0)));
}

function toModelFile({ path, compression, layout }: Source) {
  const { dataOffset, byteSize } = layout;
  return { path, format: "raw", compression, tensors: [], metadata: {}, dataOffset, byteSize } as const;
}

function toReader({ fd, signature }: OpenedFile): RangeReader {
  return {
    byteSize: Number(signature.size),
    async read(byteOffset, wanted) {
      const bytes = new Uint8Array(wanted);
      const { bytesRead } = await readAsync(fd, bytes, 0, wanted, byteOffset);
      return bytes.subarray(0, bytesRead);
    },
  };
}

function changed({ path }: Source): TensordError {
  return new TensordError("invalid-model-file", `Cannot load ${quotePath(path)}: it changed while it was loaded`, {
    hint: "Load it again once nobody writes to it. Replace a model file by a rename, so that it is whole at any time.",
  });
}

/** What the system says of the file itself; what is said of the region has its words. */
function toFailure({ path }: Pick<ModelPath, "path">, error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  return new TensordError(
    "io-error",
    `Cannot load ${quotePath(path)}: ${error.message}`,
    { errno: error.code },
    { cause: error },
  );
}
