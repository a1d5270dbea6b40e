/** The bytes of a region through the server, for those who cannot map it. Workers map; this is the slow way. */

import { quote } from "./books.ts";
import { TensordError } from "./error.ts";
import { nextState } from "./lifecycle.ts";
import { limits } from "./limits.ts";
import { describe, type Region } from "./region.ts";
import type { Store } from "./store.ts";

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
  const tensor = tensors.find(({ name }) => name === tensorName);
  if (tensor !== undefined) return tensor;
  const what = `Cannot find tensor ${quote(tensorName)} in ${describe(region)}`;
  throw new TensordError("tensor-not-found", `${what}: none of its ${tensors.length} has that name`, {
    hint: "GET /v1/regions/{region} lists its tensors. Leave ?tensor= out for the bytes of all of them.",
  });
}

/**
 * Holds `region` for a response that sends its bytes, as a reader's lease does.
 * @returns the path of its file, to be opened in this turn of the event loop.
 * @throws TensordError `region-busy`, `region-draining`, `io-error` if a worker truncated its file.
 */
export function readData(store: Store, region: Region): string {
  nextState(region.state, "read", describe(region));
  store.books.touch(region, store.now());
  const file = store.storage.openData(region.token, "read");
  try {
    checkSize(region, file.byteSize);
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
  return store.downloads.begin(file);
}

/**
 * Writes what `body` brings into `slice` of an open region, and takes its chunks' memory. It holds the region as a
 * writer's mapping does; one that fails midway leaves it open, with the bytes that came.
 * @throws TensordError `region-sealed`, `cancelled` if the region is deleted meanwhile, `payload-too-large` and
 * `validation-failed` if the body is not exactly as long as the slice, `deadline-exceeded` if it stalls, `shutting-down`
 * as soon as the server stops; what the stream throws if the sender goes away.
 */
export async function writeData(
  store: Store,
  region: Region,
  slice: DataSlice,
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
): Promise<void> {
  nextState(region.state, "write", describe(region));
  using file = store.storage.openData(region.token, "write");
  const reader = body.getReader();
  let done = 0;
  let failure: unknown;
  // A read that waits ends by this, as if the body had.
  const end = (reason?: unknown) => {
    failure ??= reason;
    reader.cancel().catch(() => {});
  };
  const endStopping = () => end(store.stopping.reason);
  const stalled = setTimeout(() => end(stall(region, done)), limits.uploadStallMs);
  store.stopping.addEventListener("abort", endStopping);
  try {
    for (;;) {
      const { value: chunk } = await reader.read();
      if (failure !== undefined) throw failure;
      if (chunk === undefined) break;
      if (done + chunk.length > slice.byteSize) throw tooLong(region, slice);
      checkWritable(region);
      checkSize(region, file.byteSize);
      file.write(chunk, slice.byteOffset + done);
      done += chunk.length;
      release(chunk);
      stalled.refresh();
    }
    if (done < slice.byteSize) throw tooShort(region, slice, done);
    store.books.touch(region, store.now());
  } finally {
    clearTimeout(stalled);
    store.stopping.removeEventListener("abort", endStopping);
    end();
  }
}

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

/** A write past the end would allocate pages that nobody has charged. */
function checkSize(region: Region, byteSize: number): void {
  if (byteSize === region.byteSize) return;
  throw new TensordError(
    "io-error",
    `Cannot use the file of ${describe(region)}: it has ${byteSize} bytes, want ${region.byteSize}`,
    { hint: "A worker truncated or extended it. Delete the region and create it again." },
  );
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
