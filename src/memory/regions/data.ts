/** The bytes of a region through the server, for those who cannot map it. Workers map; this is the slow way. */

import { setImmediate } from "node:timers/promises";
import { TensordError } from "../error.ts";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { DataFile } from "../storage/data-file.ts";
import type { Outflow } from "../storage/downloads.ts";
import { resized } from "../storage/resized.ts";

/** Part of a region's file. */
export interface DataSlice {
  /** From the start of the file. */
  readonly byteOffset: number;
  readonly byteSize: number;
}

/** Where one tensor's bytes lie, or all tensors' without a name. @throws TensordError `tensor-not-found`. */
export function locateData(region: Region, tensorName: string | undefined): DataSlice {
  const { dataOffset, byteSize, tensors } = region;
  if (tensorName === undefined) return { byteOffset: dataOffset, byteSize: byteSize - dataOffset };
  const tensor = tensors.find(tensorName);
  if (tensor !== undefined) return tensor;
  const what = `Cannot find tensor ${quote(tensorName)} in ${describe(region)}`;
  throw new TensordError("tensor-not-found", `${what}: none of its ${tensors.count} has that name`, {
    hint: "The region's descriptor lists its tensors. Leave `tensor` out for the bytes of all of them.",
  });
}

/**
 * Reads `slices` of `region`, together at most `limits.downloadCopyBytes`, in this turn of the event loop.
 * @returns all of their bytes, of a file that is whole.
 * @throws TensordError `region-busy`, `region-draining`, `io-error` if a worker truncated its file.
 */
export function copyData(store: Store, region: Region, slices: readonly DataSlice[]): readonly Uint8Array[] {
  using file = openToRead(store, region);
  const parts = slices.map(({ byteOffset, byteSize }) => file.read(byteOffset, byteSize));
  checkSize(region, file.byteSize);
  // Truncated, and given its size back since.
  const short = parts.find(({ byteLength }, index) => byteLength !== slices[index]?.byteSize);
  if (short !== undefined) throw changed(region, "a part of it was gone for a moment");
  return parts;
}

/**
 * Holds `region` for a response that sends its bytes, as a reader's lease does.
 * @returns the path of its file, to be opened soon; or, of a file that the kernel does not send, the bytes of `slice`, which hold
 * the region from their first read on.
 * @throws TensordError `region-busy`, `region-draining`, `io-error` if a worker truncated its file.
 */
export function sendData(store: Store, region: Region, slice: DataSlice): Outflow | ReadableStream<Uint8Array> {
  const file = openToRead(store, region);
  try {
    checkSize(region, file.byteSize);
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
  if (file.isSendable) return store.downloads.begin(file);
  file[Symbol.dispose]();
  return toStream(store, region, slice);
}

/** A piece a turn, as the client takes them. Whoever never reads it holds nothing. */
function toStream(store: Store, region: Region, { byteOffset, byteSize }: DataSlice): ReadableStream<Uint8Array> {
  let file: DataFile | undefined;
  let done = 0;
  const close = () => {
    file?.[Symbol.dispose]();
    file = undefined;
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          file ??= openToRead(store, region);
          const bytes = file.read(byteOffset + done, Math.min(limits.sliceBytes, byteSize - done));
          if (bytes.length === 0) throw changed(region, "a part of it is gone");
          done += bytes.length;
          controller.enqueue(bytes);
        } catch (error) {
          close();
          throw error;
        }
        if (done === byteSize) {
          close();
          controller.close();
        } else await setImmediate();
      },
      cancel: close,
    },
    { highWaterMark: 0 },
  );
}

function openToRead(store: Store, region: Region): DataFile {
  nextState(region, "read");
  store.books.touch(region, store.now());
  return store.storages.of(region).bytes.open(region.token, "read");
}

/** What brings a region's bytes. */
export interface Upload {
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Whether the transport vouches that the body is exactly as long as what it fills, or breaks off with an error. */
  readonly isMeasured: boolean;
}

/**
 * Writes what `upload` brings into `slice` of an open region. It holds the region as a writer's mapping does; one that
 * fails midway leaves it open, with the bytes that came.
 * @throws TensordError `region-sealed`, `cancelled` if the region is deleted meanwhile, `payload-too-large` and
 * `validation-failed` if the body is not exactly as long as the slice, `deadline-exceeded` if it stalls, `shutting-down`
 * as soon as the server stops, `io-error` if a worker truncates the file meanwhile; what the stream throws if the sender
 * goes away.
 */
export async function writeData(store: Store, region: Region, slice: DataSlice, upload: Upload): Promise<void> {
  nextState(region, "write");
  using file = store.storages.of(region).bytes.open(region.token, "write");
  using watch = new UploadWatch(store, region);
  // Of nothing to write the runtime makes an empty file, which takes the bytes of all other tensors.
  const fill = upload.isMeasured && slice.byteSize > 0 ? receive : copy;
  await fill(region, file, slice, upload.body, watch);
  store.books.touch(region, store.now());
}

/** Ends an upload that brings nothing for too long, or that the server's end overtakes. */
class UploadWatch implements Disposable {
  readonly #ending = new AbortController();
  readonly #stopping: AbortSignal;
  readonly #stalled: Timer;
  #byteSize = 0;

  constructor(store: Store, region: Region) {
    this.#stopping = store.stopping;
    this.#stopping.addEventListener("abort", this.#endStopping);
    const endStalled = () => this.#ending.abort(stall(region, this.#byteSize));
    this.#stalled = setTimeout(endStalled, limits.uploadStallMs);
  }

  /** Aborts when the upload must end, with the failure that says why. */
  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  /** @param byteSize how many bytes have come by now. */
  tell(byteSize: number): void {
    if (byteSize === this.#byteSize) return;
    this.#byteSize = byteSize;
    this.#stalled.refresh();
  }

  readonly #endStopping = () => this.#ending.abort(this.#stopping.reason);

  [Symbol.dispose](): void {
    clearTimeout(this.#stalled);
    this.#stopping.removeEventListener("abort", this.#endStopping);
  }
}

type Fill = (
  region: Region,
  file: DataFile,
  slice: DataSlice,
  body: Upload["body"],
  watch: UploadWatch,
) => Promise<void>;

/** Lets the runtime write the body, and looks now and then. What it may have written in vain meanwhile is the region's own. */
const receive: Fill = async (region, file, slice, body, watch) => {
  const { allocatedBytes } = file;
  const check = () => {
    checkWritable(region);
    checkSize(region, file.byteSize);
    // A file that was truncated grows back where we write, with a hole where bytes were.
    checkPages(region, file.allocatedBytes, allocatedBytes);
  };
  check();
  using inflow = file.receive(body, slice.byteOffset);
  const { promise: ending, reject: end } = Promise.withResolvers<never>();
  watch.signal.addEventListener("abort", () => end(watch.signal.reason));
  const look = setInterval(() => {
    watch.tell(inflow.byteSize);
    try {
      check();
    } catch (error) {
      end(error);
    }
  }, limits.uploadLookMs);
  try {
    await Promise.race([inflow.ended, ending]);
  } finally {
    clearInterval(look);
  }
  check();
  if (inflow.byteSize < slice.byteSize) throw tooShort(region, slice, inflow.byteSize);
};

/** Writes the body chunk by chunk, no further than the slice, and takes the chunks' memory. */
const copy: Fill = async (region, file, slice, body, watch) => {
  const reader = body.getReader();
  // A read that waits ends by this, as if the body had.
  const cancel = () => void reader.cancel().catch(() => {});
  watch.signal.addEventListener("abort", cancel);
  try {
    for (let done = 0; ; watch.tell(done)) {
      const { value: chunk } = await reader.read();
      watch.signal.throwIfAborted();
      if (chunk === undefined) {
        if (done < slice.byteSize) throw tooShort(region, slice, done);
        return;
      }
      if (done + chunk.length > slice.byteSize) throw tooLong(region, slice);
      checkWritable(region);
      checkSize(region, file.byteSize);
      file.write(chunk, slice.byteOffset + done);
      done += chunk.length;
      release(chunk);
    }
  } finally {
    // What still comes of a body that is refused is for whoever brought it.
    reader.releaseLock();
  }
};

/**
 * Gives a chunk's memory back at once: the first GiB then adds 5 to 7 MB to the process, where the collector lets 29 to 44
 * pile up. A part of a larger buffer is not ours to take.
 */
function release({ buffer, byteLength }: Uint8Array<ArrayBuffer>): void {
  if (byteLength === buffer.byteLength) buffer.transfer(0);
}

/** Somebody may have deleted the region since the chunk before. */
function checkWritable(region: Region): void {
  if (region.state === "open") return;
  throw new TensordError("cancelled", `Cannot write to ${describe(region)} to its end: it was deleted meanwhile`, {
    hint: "Create it anew if it is needed.",
  });
}

function checkSize(region: Region, byteSize: number): void {
  if (byteSize !== region.byteSize) throw resized(`Cannot use ${describe(region)}`, byteSize, region.byteSize);
}

/** @param before what the file's pages took when the upload began. */
function checkPages(region: Region, allocatedBytes: number, before: number): void {
  if (allocatedBytes < before) throw changed(region, `its pages take ${allocatedBytes} bytes, want ${before}`);
}

function changed(region: Region, how: string): TensordError {
  return new TensordError("io-error", `Cannot use the file of ${describe(region)}: ${how}`, {
    hint: "A worker truncated it meanwhile, which none may. Delete the region and create it again.",
  });
}

function tooLong(region: Region, slice: DataSlice): TensordError {
  return new TensordError(
    "payload-too-large",
    `Cannot write all of it to ${describe(region)}: the body goes on after the ${slice.byteSize} bytes that it fills`,
    { hint: "The bytes up to there are written. Say with Content-Range which part comes, if it is one." },
  );
}

function tooShort(region: Region, slice: DataSlice, byteSize: number): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot write all of it to ${describe(region)}: the body has ${byteSize} bytes, want ${slice.byteSize}`,
    { hint: "The bytes that came are written. Send all of them again, or say with Content-Range which part comes." },
  );
}

function stall(region: Region, done: number): TensordError {
  return new TensordError(
    "deadline-exceeded",
    `Cannot wait longer for bytes for ${describe(region)}: none came for ${limits.uploadStallMs} ms, after ${done}`,
    { hint: "The bytes that came are written. Send the rest with Content-Range, or all of it again." },
  );
}
