/**
 * Model files as the event loop has them: opened, parsed, looked at again and closed by a Worker, since a file system may take
 * its time, and a header be long.
 */

import { type FailureCode, type FailureFacts, SystemError, TensordError } from "../memory/error.ts";
import { Tensors } from "../memory/layout/tensors.ts";
import type { CreateRequest } from "../memory/regions/create.ts";
import { Lane, WorkerQueue } from "../memory/storage/lane.ts";
import type { LaidOut, LaidOutBytes } from "../memory/storage/layout-lane.ts";
import type { Compression } from "./formats/format.ts";
import { fileLimits } from "./limits.ts";
import type { ModelPath } from "./source/model-roots.ts";

/** How a file may be taken: `raw` are bytes, whatever is in them. */
export type WantedFormat = "auto" | "raw";

/** What tells that a file is still the one that was opened. Times in ns since the epoch. */
export interface Signature {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

export type FileJob =
  | { readonly kind: "start" }
  | { readonly kind: "open"; readonly file: ModelPath; readonly format: WantedFormat }
  | { readonly kind: "look"; readonly files: readonly OpenPart[] }
  | { readonly kind: "close"; readonly files: readonly OpenPart[] };

export type FileReply =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly message: string;
      readonly failure?: { readonly code: FailureCode; readonly facts: FailureFacts };
      readonly system?: { readonly call: string; readonly errno: number; readonly code: string };
    };

/** Whose file it is, and where. */
export interface Standing {
  readonly uid: number;
  readonly mode: number;
  /** The number that statfs(2) has of its file system. */
  readonly fileSystem: number;
}

/** One file that is open. */
export interface OpenPart {
  readonly fd: number;
  readonly signature: Signature;
}

/** How many numbers of `pieces` are a piece: its file's place in `files`, from where of it, how many bytes, to where of the region. */
export const pieceNumbers = 4;

/** What the Worker says of a file that it has opened, or of all files of a sharded model, the index first. */
export interface OpenedBytes {
  readonly files: readonly OpenPart[];
  /** Of a sharded model: where its tensors lie and are to go. Undefined of one file, whose bytes stay in their order. */
  readonly pieces: Float64Array | undefined;
  readonly compression: Compression;
  /** Of the first file. */
  readonly standing: Standing;
  /** Names this state of the file: another one has another. */
  readonly key: string;
  readonly tensors: CreateRequest["tensors"];
  readonly layout: LaidOutBytes;
}

/** A file that is open. */
export interface OpenedFile extends Omit<OpenedBytes, "layout"> {
  /** As it lies in the file: its header, and where each tensor is. */
  readonly layout: LaidOut;
}

export class FileLane implements Disposable {
  /** What copies a file's bytes, several parts of it at a time. */
  readonly copying: readonly Lane[] = Array.from({ length: fileLimits.copyingLanes }, () => new Lane());
  readonly #queue = new WorkerQueue<FileJob, FileReply>({
    start: () => new Worker(new URL("./file-lane.worker.ts", import.meta.url).href),
    transfers: () => [],
    read: (reply) => {
      if (reply.ok) return reply.value;
      const { message, failure, system } = reply;
      if (failure !== undefined) throw new TensordError(failure.code, message, failure.facts);
      throw system === undefined ? new Error(message) : new SystemError(system.call, system.errno, system.code);
    },
  });

  /** Brings the Workers up. Without it the first job does, which takes descriptors and time. */
  async start(): Promise<void> {
    await Promise.all([this.#queue.run({ kind: "start" }), ...this.copying.map((lane) => lane.start())]);
  }

  /**
   * Opens a file and reads its header. The caller closes it, by `close`.
   * @throws TensordError `forbidden` where a link leads out of the root, `invalid-model-file`, `unsupported-format`, `io-error`.
   */
  async open(file: ModelPath, format: WantedFormat): Promise<OpenedFile> {
    const { layout, ...opened } = (await this.#queue.run({ kind: "open", file, format })) as OpenedBytes;
    const { count, bytes, ...rest } = layout;
    return { ...opened, layout: { ...rest, list: Tensors.written(count, bytes) } };
  }

  /** Whether each of its files is what it was when it was opened. */
  isSame({ files }: Pick<OpenedFile, "files">): Promise<boolean> {
    return this.#queue.run({ kind: "look", files }) as Promise<boolean>;
  }

  async close({ files }: Pick<OpenedFile, "files">): Promise<void> {
    await this.#queue.run({ kind: "close", files });
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
    for (const lane of this.copying) lane[Symbol.dispose]();
  }
}
