/** The map of an elastic pool as a worker is handed it: a file of JSON, `[[byte_offset, byte_size, first_page], …]`, that nobody can change. */

import { closeSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { limits } from "../../memory/limits.ts";
import { createSealedFile } from "../../memory/os/sealed-file.ts";
import type { Run } from "../../memory/state/elastic.ts";

export interface RunsFile extends Disposable {
  readonly fd: number;
  readonly byteSize: number;
}

const columns = 3;

/** What a map is now, three numbers a run: a copy, while it goes on changing. */
export function toTable(runs: readonly Pick<Run, "byteOffset" | "byteSize" | "firstPage">[]): Float64Array {
  const table = new Float64Array(columns * runs.length);
  for (const [index, { byteOffset, byteSize, firstPage }] of runs.entries()) {
    table[columns * index] = byteOffset;
    table[columns * index + 1] = byteSize;
    table[columns * index + 2] = firstPage;
  }
  return table;
}

/** Writes it down slice by slice: 65,536 runs take milliseconds. @throws TensordError `out-of-descriptors`. */
export async function createRunsFile(table: Float64Array): Promise<RunsFile> {
  const parts: Buffer[] = [];
  for (let done = 0; done < table.length; done += columns * limits.elasticSlice) {
    if (done > 0) await setImmediate();
    parts.push(Buffer.from(toText(table.subarray(done, done + columns * limits.elasticSlice), done > 0)));
  }
  const bytes = Buffer.concat([Buffer.from("["), ...parts, Buffer.from("]")]);
  const fd = createSealedFile("tensord-runs", bytes);
  return { fd, byteSize: bytes.length, [Symbol.dispose]: () => closeSync(fd) };
}

function toText(slice: Float64Array, isBehind: boolean): string {
  let text = "";
  for (let at = 0; at < slice.length; at += columns) {
    text += `${isBehind || at > 0 ? "," : ""}[${slice[at]},${slice[at + 1]},${slice[at + 2]}]`;
  }
  return text;
}
