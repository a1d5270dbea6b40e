/** The Worker behind a file lane: opens a file below a root, reads its header, and says what is in it. It reads no tensor. */

import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { SystemError, TensordError } from "../memory/error.ts";
import { layOutRegion, type Tensor } from "../memory/layout/layout.ts";
import { toTensorIndex } from "../memory/layout/tensor-index.ts";
import { Tensors } from "../memory/layout/tensors.ts";
import { readDescriptorLimit } from "../memory/os/libc.ts";
import { openBeneath } from "../memory/os/libc-files.ts";
import { yieldToRequests } from "../memory/os/nice.ts";
import type { LaidOutBytes } from "../memory/storage/layout-lane.ts";
import { isLong } from "../memory/storage/tensor-files.ts";
import type { FileJob, FileReply, OpenedBytes, OpenPart, Signature, Standing, WantedFormat } from "./file-lane.ts";
import { toContent } from "./formats/content.ts";
import type { ModelFile, RangeReader } from "./formats/format.ts";
import { openModelFile } from "./formats/open-model-file.ts";
import { quotePath, unsupported, withPath } from "./formats/refusal.ts";
import { isShardIndex, openShards } from "./formats/shards.ts";
import { checkMembers } from "./formats/stream-content.ts";
import type { ModelPath } from "./source/model-roots.ts";

declare const self: Worker;

yieldToRequests();

/** More tensors than these go over as one text, which both threads see. */
const fewTensors = 64;

self.onmessage = (event: MessageEvent<FileJob>) => void answer(event.data);

async function answer(job: FileJob): Promise<void> {
  self.postMessage(await run(job));
}

async function run(job: FileJob): Promise<FileReply> {
  try {
    return { ok: true, value: await perform(job) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof TensordError) return { ok: false, message, failure: { code: error.code, facts: error.facts } };
    const { syscall, errno = 0, code = "" } = error as NodeJS.ErrnoException;
    if (error instanceof SystemError)
      return { ok: false, message, system: { call: error.call, errno: error.errno, code: error.code } };
    return syscall === undefined
      ? { ok: false, message }
      : { ok: false, message, system: { call: syscall, errno: Math.abs(errno), code } };
  }
}

async function perform(job: FileJob): Promise<OpenedBytes | boolean | undefined> {
  switch (job.kind) {
    case "start":
      // Binds the C library, so that nothing is loaded later.
      readDescriptorLimit();
      return undefined;
    case "open":
      return await (job.format === "auto" && isShardIndex(job.file.path)
        ? openSharded(job.file)
        : open(job.file, job.format));
    case "look":
      return job.files.every(({ fd, signature }) => isSame(toSignature(fstatSync(fd, { bigint: true })), signature));
    case "close":
      closeAll(job.files);
      return undefined;
  }
}

async function open(file: ModelPath, format: WantedFormat): Promise<OpenedBytes> {
  const part = openPart(file);
  try {
    const reader = toReader(part);
    const found = await openModelFile(reader, file.path, format === "raw" ? { format } : {});
    refuseDeflated(found);
    await checkMembers(reader, found);
    const { compression, byteSize } = found;
    const tensors = found.tensors.length > 0 ? found.tensors : [toOne(byteSize)];
    await using content = toContent(reader, compression);
    const beginning = await content.read(0, found.dataOffset);
    const isRegion = found.format === "safetensors";
    const [header, dataOffset] = isRegion ? [beginning, found.dataOffset] : [new Uint8Array(0), 0];
    const layout = toLayout(tensors, header, { dataOffset, byteSize });
    const key = toKey([part], [beginning]);
    const standing = toStanding(part);
    return { files: [part], pieces: undefined, compression, standing, key, tensors: toAsked(tensors), layout };
  } catch (error) {
    closeAll([part]);
    throw error;
  }
}

/** All files of a model become one region, whose header is laid out anew: what is loaded together is there together. */
async function openSharded({ path, root, below }: ModelPath): Promise<OpenedBytes> {
  const files = [openPart({ path, root, below })];
  try {
    const [index] = files as [OpenPart];
    const { shards } = await openShards(toReader(index), path, async (name) => {
      const shard = openPart({ path: join(dirname(path), name), root, below: join(dirname(below), name) });
      files.push(shard);
      return toReader(shard);
    });
    refusePackedShards(shards);
    const specs = shards.flatMap(({ tensors }) => tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })));
    const { tensors, header, ...rest } = layOutRegion(specs, { format: "pt" });
    const places = new Map(tensors.map(({ name, byteOffset }) => [name, byteOffset]));
    const headers: Uint8Array[] = [];
    for (const [at, { dataOffset }] of shards.entries()) {
      headers.push(await toReader(files[at + 1] as OpenPart).read(0, dataOffset));
    }
    const layout = toLayout(tensors, header, rest);
    const [key, pieces] = [toKey(files, headers), toPieces(shards, places)];
    return { files, pieces, compression: "none", standing: toStanding(index), key, tensors: toAsked(tensors), layout };
  } catch (error) {
    closeAll(files);
    throw error;
  }
}

function refusePackedShards(shards: readonly ModelFile[]): void {
  const packed = shards.find(({ compression }) => compression !== "none");
  if (packed === undefined) return;
  const error = unsupported("it is a shard that is compressed", "Decompress the model's files, and load its index.");
  throw withPath(packed.path, error);
}

/** Tensors that follow each other in a file and in the region are one piece. */
function toPieces(shards: readonly ModelFile[], places: ReadonlyMap<string, number>): Float64Array {
  const pieces: [file: number, from: number, byteSize: number, to: number][] = [];
  for (const [at, { tensors }] of shards.entries()) {
    for (const { name, byteOffset: from, byteSize } of tensors.toSorted((a, b) => a.byteOffset - b.byteOffset)) {
      if (byteSize === 0) continue;
      // The index is the first file.
      const [file, to] = [at + 1, places.get(name) ?? 0];
      const last = pieces.at(-1);
      if (last?.[0] === file && last[1] + last[2] === from && last[3] + last[2] === to) last[2] += byteSize;
      else pieces.push([file, from, byteSize, to]);
    }
  }
  return Float64Array.from(pieces.flat());
}

/** Opens a regular file. The caller closes it. */
function openPart(file: ModelPath): OpenPart {
  const fd = openFile(file);
  const status = fstatSync(fd, { bigint: true });
  if (status.isFile()) return { fd, signature: toSignature(status) };
  closeSync(fd);
  throw noFile(file.path, status);
}

function toStanding({ fd }: OpenPart): Standing {
  const { uid, mode } = fstatSync(fd);
  return { uid, mode, fileSystem: statfsSync(`/proc/self/fd/${fd}`).type };
}

function closeAll(files: readonly OpenPart[]): void {
  for (const { fd } of files) closeSync(fd);
}

function openFile({ path, root, below }: ModelPath): number {
  let directory: number | undefined;
  try {
    directory = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
    return openBeneath(directory, below);
  } catch (error) {
    throw toRefusal(path, root, error);
  } finally {
    if (directory !== undefined) closeSync(directory);
  }
}

/** What the system says of a path becomes what a caller can do about it. */
function toRefusal(path: string, root: string, error: unknown): unknown {
  const { code = "" } = error as NodeJS.ErrnoException;
  const cannot = `Cannot load ${quotePath(path)}`;
  if (code === "EXDEV" || code === "ELOOP") {
    return new TensordError("forbidden", `${cannot}: a link on its way leads out of ${root}`, {
      hint: "Name the folder that it leads to among TENSORD_MODEL_ROOTS, and load it from there.",
    });
  }
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new TensordError("invalid-model-file", `${cannot}: it is not there`, {
      errno: code,
      hint: "The path is as the server sees it: in a container, as it is mounted there.",
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    return new TensordError("io-error", `${cannot}: the server may not read it (uid ${process.geteuid?.()})`, {
      errno: code,
      hint: "Let the server's user or group read it, and enter its folders.",
    });
  }
  return error;
}

function noFile(path: string, status: BigIntStats): TensordError {
  const what = status.isDirectory() ? "a directory" : status.isFIFO() ? "a FIFO" : "no regular file";
  return new TensordError("invalid-model-file", `Cannot load ${quotePath(path)}: it is ${what}, want a file`, {
    hint: "Name the file that has the weights.",
  });
}

function toReader({ fd, signature }: OpenPart): RangeReader {
  return {
    byteSize: Number(signature.size),
    async read(byteOffset, wanted) {
      const bytes = new Uint8Array(wanted);
      let done = 0;
      while (done < wanted) {
        const got = readSync(fd, bytes, done, wanted - done, byteOffset + done);
        if (got === 0) break;
        done += got;
      }
      return bytes.subarray(0, done);
    },
  };
}

/** Bytes are kept as they are, and so an array that has to be inflated by itself could not be mapped. */
function refuseDeflated({ path, tensors }: ModelFile): void {
  if (!tensors.some(({ member }) => member?.isDeflated)) return;
  const hint = "Save it by numpy.savez, and compress the whole file by zstd or gzip if it is to be small.";
  throw withPath(path, unsupported("its arrays are compressed one by one, want them as they are", hint));
}

function toLayout(
  tensors: readonly Tensor[],
  header: Uint8Array,
  rest: Pick<LaidOutBytes, "dataOffset" | "byteSize">,
): LaidOutBytes {
  const list = Tensors.of(tensors);
  const index = isLong(list) ? toTensorIndex(list) : undefined;
  return { header, ...rest, count: list.count, bytes: list.bytes, index };
}

/** All of the bytes, where nobody says what they are. */
function toOne(byteSize: number): Tensor {
  return { name: "data", dtype: "U8", shape: [byteSize], byteOffset: 0, byteSize, aligned: true };
}

function toAsked(tensors: readonly Tensor[]): OpenedBytes["tensors"] {
  const specs = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  if (specs.length <= fewTensors) return specs;
  const text = Buffer.from(JSON.stringify(specs));
  const shared = new SharedArrayBuffer(text.byteLength);
  new Uint8Array(shared).set(text);
  return shared;
}

function toSignature({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): Signature {
  return { dev, ino, size, mtimeNs, ctimeNs };
}

function isSame(now: Signature, then: Signature): boolean {
  return (Object.keys(then) as (keyof Signature)[]).every((field) => now[field] === then[field]);
}

/** What tells one state of the files from another: who they are, and what stands before their data. */
function toKey(files: readonly OpenPart[], headers: readonly Uint8Array[]): string {
  const text = files.map(({ signature }) => Object.values(signature).join(" ")).join();
  const hash = headers.reduce((seed, header) => Bun.hash.xxHash3(header, seed), Bun.hash.xxHash3(text));
  return `file-${hash.toString(16).padStart(16, "0")}`;
}
