/**
 * What takes longer than a turn of the event loop may with many tensors: reading the body that asks for them, laying them
 * out, comparing them. A Worker of its own does it, one job after another; few tensors are cheaper at once.
 */

import { type FailureCode, type FailureFacts, TensordError } from "../error.ts";
import type { AskedText } from "../layout/asked-text.ts";
import { layOutRegion, type TensorDifference, type TensorSpec } from "../layout/layout.ts";
import { toTensorIndex } from "../layout/tensor-index.ts";
import { type TensorList, Tensors } from "../layout/tensors.ts";
import { WorkerQueue } from "./lane.ts";
import { isLong, TensorFile } from "./tensor-files.ts";

/** Tensors that are asked for: few as they are, many as their JSON, which both threads see. */
export type AskedTensors = readonly TensorSpec[] | SharedArrayBuffer;

/** A region that has been laid out. */
export interface LaidOut {
  /** As `RegionLayout` has it. */
  readonly header: Uint8Array;
  readonly dataOffset: number;
  readonly byteSize: number;
  readonly list: Tensors;
  /** Of a list that is long enough for a file. */
  readonly index: Uint8Array | undefined;
}

/** A body that has been read. */
export interface ReadBody extends Omit<AskedText, "tensors"> {
  readonly tensors: SharedArrayBuffer | undefined;
}

/** false: without a header. */
type Metadata = Readonly<Record<string, string>> | false;
export type LayoutJob =
  | { readonly kind: "start" }
  | { readonly kind: "read"; readonly parts: readonly Uint8Array[] }
  | { readonly kind: "lay-out"; readonly tensors: AskedTensors; readonly metadata: Metadata }
  | { readonly kind: "ask-again"; readonly existing: ExistingList }
  | { readonly kind: "compare"; readonly tensors: AskedTensors; readonly existing: ExistingList };

/** A list by its bytes, or by the path of its file, whose index is behind it. */
export interface ExistingList {
  readonly source: Uint8Array | string;
  readonly count: number;
  readonly byteSize: number;
}

/** What the Worker answers: of a layout its list as bytes. */
export type LayoutReply =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly message: string;
      readonly failure: { code: FailureCode; facts: FailureFacts } | undefined;
    };

export class LayoutLane implements Disposable {
  readonly #queue = new WorkerQueue<LayoutJob, LayoutReply>({
    start: () => new Worker(new URL("./layout-lane.worker.ts", import.meta.url).href),
    transfers: (job) => (job.kind === "read" ? job.parts.flatMap(toOwnBuffer) : []),
    read: (reply) => {
      if (reply.ok) return reply.value;
      const { message, failure } = reply;
      throw failure === undefined ? new Error(message) : new TensordError(failure.code, message, failure.facts);
    },
  });

  /** Brings the Worker up. Without it the first job does, which takes descriptors and time. */
  async start(): Promise<void> {
    await this.#queue.run({ kind: "start" });
  }

  /**
   * Reads the body of a creation, which has come in parts, and takes their memory.
   * @throws TensordError `malformed-body`, `validation-failed`.
   */
  readBody(parts: readonly Uint8Array[]): Promise<ReadBody> {
    return this.#queue.run({ kind: "read", parts }) as Promise<ReadBody>;
  }

  /** As `layOutRegion`, of few tensors in this turn. */
  layOut(tensors: AskedTensors, metadata: Metadata): LaidOut | Promise<LaidOut> {
    if (!(tensors instanceof SharedArrayBuffer)) return layOut(tensors, metadata);
    return this.#layOutMany(tensors, metadata);
  }

  async #layOutMany(tensors: SharedArrayBuffer, metadata: Metadata): Promise<LaidOut> {
    const { count, bytes, ...rest } = (await this.#queue.run({ kind: "lay-out", tensors, metadata })) as LaidOutBytes;
    return { ...rest, list: Tensors.written(count, bytes) };
  }

  /** What keeps the tensors of a region apart from those that are asked for, or undefined; of few in this turn. */
  compare(
    tensors: AskedTensors,
    existing: TensorList,
  ): TensorDifference | undefined | Promise<TensorDifference | undefined> {
    if (!(tensors instanceof SharedArrayBuffer) && existing instanceof Tensors) return existing.differenceFrom(tensors);
    const job = { kind: "compare", tensors, existing: toExisting(existing) } as const;
    return this.#queue.run(job) as Promise<TensorDifference | undefined>;
  }

  /** What has to be asked for to get the tensors of a region once more; of few in this turn. */
  askAgain(existing: TensorList): AskedTensors | Promise<AskedTensors> {
    if (existing instanceof Tensors) return existing.toSpecs();
    return this.#queue.run({ kind: "ask-again", existing: toExisting(existing) }) as Promise<SharedArrayBuffer>;
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
  }
}

function toExisting(list: TensorList): ExistingList {
  const { count, byteSize } = list;
  return { source: list instanceof TensorFile ? list.path : list.read(0, byteSize), count, byteSize };
}

/** The memory of bytes that are all of it. What shares it with others is copied on its way. */
export function toOwnBuffer({ buffer, byteLength }: Uint8Array): ArrayBuffer[] {
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength && byteLength > 0 ? [buffer] : [];
}

/** A layout on its way between two threads. */
export type LaidOutBytes = Omit<LaidOut, "list"> & { readonly count: number; readonly bytes: Uint8Array };

/** Lays out in the thread that calls it. */
export function layOut(specs: readonly TensorSpec[], metadata: Metadata): LaidOut {
  const { header, dataOffset, byteSize, tensors } = layOutRegion(specs, metadata);
  const list = Tensors.of(tensors);
  return { header, dataOffset, byteSize, list, index: isLong(list) ? toTensorIndex(list) : undefined };
}
