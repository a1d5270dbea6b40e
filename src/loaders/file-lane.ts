/**
 * Model files as the event loop has them: opened, parsed, looked at again and closed by a Worker, since a file system may take
 * its time, and a header be long.
 */

import assert from "node:assert/strict";
import type { Checksum } from "../memory/layout/checksum.ts";
import { Tensors } from "../memory/layout/tensors.ts";
import type { CreateRequest } from "../memory/regions/create.ts";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import { Lane, WorkerQueue } from "../memory/storage/lane.ts";
import type { LaidOut, LaidOutBytes } from "../memory/storage/layout-lane.ts";
import type { Compression } from "./formats/format.ts";
import { fileLimits } from "./limits.ts";
import type { ModelPath } from "./source/model-roots.ts";
import type { S3Object } from "./source/s3-uri.ts";
import { type FileReply, readReply } from "./worker-reply.ts";

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
  /** Of the first file; null of what is no file. */
  readonly standing: Standing | null;
  /** Names this state of the file: another one has another. */
  readonly key: string;
  readonly tensors: CreateRequest["tensors"];
  readonly layout: LaidOutBytes;
}

/** A file that is open. */
export interface OpenedFile extends Omit<OpenedBytes, "layout"> {
  /** As it lies in the file: its header, and where each tensor is. */
  readonly layout: LaidOut;
  /** Of what is no file: what brings its bytes. */
  readonly bring?: Bring | undefined;
  /** Of what is no file: what holds its bytes against a region's. */
  readonly compare?: Compare | undefined;
}

/** Writes the data of a region that nobody sees yet. @param onBytes hears of the bytes that are done since the last time. */
export type Bring = (
  store: Store,
  region: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
) => Promise<Checksum>;

/** Whether the data is what an open file has from `dataOffset` to `byteSize`. @param onBytes as of `Bring`. */
export type Compare = (
  fd: number,
  dataOffset: number,
  byteSize: number,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
) => Promise<boolean>;

/** Opens what is no file, and has a Worker of its own for it. */
export interface ObjectLane extends Disposable {
  start(): Promise<void>;
  open(object: S3Object, format: WantedFormat, signal: AbortSignal): Promise<OpenedFile>;
}

export class FileLane implements Disposable {
  readonly #objects: ObjectLane | undefined;
  /** What copies a file's bytes, several parts of it at a time. */
  readonly copying: readonly Lane[] = Array.from({ length: fileLimits.copyingLanes }, () => new Lane());
  readonly #queue = new WorkerQueue<FileJob, FileReply>({
    start: () => new Worker(new URL("./file-lane.worker.ts", import.meta.url).href),
    transfers: () => [],
    read: readReply,
  });

  /** @param objects opens what lies in S3; undefined where no prefix of a bucket is a root. It ends with this lane. */
  constructor(objects?: ObjectLane) {
    this.#objects = objects;
  }

  /** Brings the Workers up. Without it the first job does, which takes descriptors and time. */
  async start(): Promise<void> {
    await Promise.all([
      this.#queue.run({ kind: "start" }),
      ...this.copying.map((lane) => lane.start()),
      this.#objects?.start(),
    ]);
  }

  /**
   * Opens a file and reads its header. The caller closes it, by `close`. @param signal ends it where the file is an object.
   * @throws TensordError `forbidden` where a link leads out of the root, `invalid-model-file`, `unsupported-format`, `io-error`; as `ObjectLane`.
   */
  async open(file: ModelPath, format: WantedFormat, signal: AbortSignal): Promise<OpenedFile> {
    if (file.object !== undefined) {
      assert(this.#objects !== undefined, "an object below a root has a service");
      return await this.#objects.open(file.object, format, signal);
    }
    const { layout, ...opened } = (await this.#queue.run({ kind: "open", file, format })) as OpenedBytes;
    const { count, bytes, ...rest } = layout;
    return { ...opened, layout: { ...rest, list: Tensors.written(count, bytes) } };
  }

  /** Whether each of its files is what it was when it was opened. */
  isSame({ files }: Pick<OpenedFile, "files">): Promise<boolean> {
    return this.#queue.run({ kind: "look", files }) as Promise<boolean>;
  }

  async close({ files }: Pick<OpenedFile, "files">): Promise<void> {
    if (files.length === 0) return;
    await this.#queue.run({ kind: "close", files });
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
    for (const lane of this.copying) lane[Symbol.dispose]();
    this.#objects?.[Symbol.dispose]();
  }
}
