/** The Worker behind a file lane: opens a file below a root, reads its header, and says what is in it. It reads no tensor. */

import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { TensordError } from "../memory/error.ts";
import { readDescriptorLimit } from "../memory/os/libc.ts";
import { openBeneath } from "../memory/os/libc-files.ts";
import { yieldToRequests } from "../memory/os/nice.ts";
import type { FileJob, OpenedBytes, OpenPart, Signature, Standing, WantedFormat } from "./file-lane.ts";
import type { RangeReader } from "./formats/format.ts";
import { quotePath } from "./formats/refusal.ts";
import { isShardIndex } from "./formats/shards.ts";
import { readModel, readShardedModel, toKey } from "./read-model.ts";
import { toRepository } from "./source/hub-cache.ts";
import type { ModelPath } from "./source/model-roots.ts";
import { type FileReply, toFailedReply } from "./worker-reply.ts";

declare const self: Worker;

yieldToRequests();

self.onmessage = (event: MessageEvent<FileJob>) => void answer(event.data);

async function answer(job: FileJob): Promise<void> {
  self.postMessage(await run(job));
}

async function run(job: FileJob): Promise<FileReply> {
  try {
    return { ok: true, value: await perform(job) };
  } catch (error) {
    return toFailedReply(error);
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
    const { headers, ...read } = await readModel(toReader(part), file.path, format);
    return { ...read, files: [part], standing: toStanding(part), key: toKey([toState(part)], headers) };
  } catch (error) {
    closeAll([part]);
    throw error;
  }
}

async function openSharded({ path, root, below }: ModelPath): Promise<OpenedBytes> {
  const files = [openPart({ path, root, below })];
  try {
    const [index] = files as [OpenPart];
    const { headers, ...read } = await readShardedModel(toReader(index), path, async (name) => {
      const shard = openPart({ path: join(dirname(path), name), root, below: join(dirname(below), name) });
      files.push(shard);
      return toReader(shard);
    });
    return { ...read, files, standing: toStanding(index), key: toKey(files.map(toState), headers) };
  } catch (error) {
    closeAll(files);
    throw error;
  }
}

function toState({ signature }: OpenPart): string {
  return Object.values(signature).join(" ");
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
  const { folder, rest } = toRepository(below);
  const opened: number[] = [];
  try {
    opened.push(openSync(root, constants.O_RDONLY | constants.O_DIRECTORY));
    // A folder on the way is below the root as well, whatever is a link to it.
    if (folder !== "") opened.push(openBeneath(opened[0] as number, folder));
    return openBeneath(opened.at(-1) as number, rest);
  } catch (error) {
    throw toRefusal(path, join(root, folder), folder !== "", error);
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

/** What the system says of a path becomes what a caller can do about it. */
function toRefusal(path: string, bound: string, isRepository: boolean, error: unknown): unknown {
  const { code = "" } = error as NodeJS.ErrnoException;
  const cannot = `Cannot load ${quotePath(path)}`;
  if (code === "EXDEV" || code === "ELOOP") {
    return new TensordError("forbidden", `${cannot}: a link on its way leads out of ${bound}`, {
      hint: isRepository
        ? "Links of a Hugging Face cache are followed inside of the folder of their own repository: download the file there anew."
        : "Name the folder that it leads to among TENSORD_MODEL_ROOTS, and load it from there.",
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

function toSignature({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): Signature {
  return { dev, ino, size, mtimeNs, ctimeNs };
}

function isSame(now: Signature, then: Signature): boolean {
  return (Object.keys(then) as (keyof Signature)[]).every((field) => now[field] === then[field]);
}
