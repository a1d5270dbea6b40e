/** Writes megabytes to a file of a tmpfs without holding the event loop: a slice a turn, each a tenth of a millisecond. */

import { writeSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { limits } from "../limits.ts";

/** @throws the system's error of the slice that could not be written. */
export async function writeInSlices(fd: number, bytes: Uint8Array, byteOffset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    if (done > 0) await setImmediate();
    const end = Math.min(done + limits.sliceBytes, bytes.length);
    writeSlice(fd, bytes, done, end, byteOffset);
    done = end;
  }
}

/** Writes `[from, to)` of the bytes, all of it, where it belongs behind `byteOffset`. */
export function writeSlice(fd: number, bytes: Uint8Array, from: number, to: number, byteOffset: number): void {
  for (let done = from; done < to; ) done += writeSync(fd, bytes, done, to - done, byteOffset + done);
}
