/** The Worker behind a file lane: opens a file below a root, reads its header, and says what is in it. It reads no tensor. */

import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { SystemError, TensordError } from "../memory/error.ts";
import type { Tensor } from "../memory/layout/layout.ts";
import { toTensorIndex } from "../memory/layout/tensor-index.ts";
import { Tensors } from "../memory/layout/tensors.ts";
import { readDescriptorLimit } from "../memory/os/libc.ts";
import { openBeneath } from "../memory/os/libc-files.ts";
import { yieldToRequests } from "../memory/os/nice.ts";
import type { LaidOutBytes } from "../memory/storage/layout-lane.ts";
import { isLong } from "../memory/storage/tensor-files.ts";
import type { FileJob, FileReply, OpenedBytes, Signature, WantedFormat } from "./file-lane.ts";
import { toContent } from "./formats/content.ts";
import type { ModelFile, RangeReader } from "./formats/format.ts";
import { openModelFile } from "./formats/open-model-file.ts";
import { quotePath, unsupported, withPath } from "./formats/refusal.ts";
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
      return await open(job.file, job.format);
    case "look":
      return isSame(toSignature(fstatSync(job.fd, { bigint: true })), job.signature);
    case "close":
      closeSync(job.fd);
      return undefined;
  }
}

async function open(file: ModelPath, format: WantedFormat): Promise<OpenedBytes> {
  const fd = openFile(file);
  try {
    const status = fstatSync(fd, { bigint: true });
    if (!status.isFile()) throw noFile(file.path, status);
    const signature = toSignature(status);
    const reader = toReader(fd, Number(status.size));
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
    return { fd, signature, compression, key: toKey(signature, beginning), tensors: toAsked(tensors), layout };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
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

function toReader(fd: number, byteSize: number): RangeReader {
  return {
    byteSize,
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

function toKey(signature: Signature, header: Uint8Array): string {
  const text = Object.values(signature).join(" ");
  const hash = Bun.hash.xxHash3(text, Bun.hash.xxHash3(header));
  return `file-${BigInt(hash).toString(16).padStart(16, "0")}`;
}
