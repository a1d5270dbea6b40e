/** Model files on disk, to be loaded: one that is always there, and folders of a test's own. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { safetensorsFile } from "./model-files.ts";

export const modelFolder = join(import.meta.dirname, "models");
/** Tensors `w`, F32 `[2, 2]`, and `b`, I8 `[3]`, whose bytes are 0 to 18. */
export const tinyPath = join(modelFolder, "tiny.safetensors");
export const tinyUri = toUri(tinyPath);
/** The same bytes, in a file of its own. */
export const tinyAgainUri = toUri(join(modelFolder, "tiny-again.safetensors"));
/** The index of a model in several files, of which there is one: the tiny one. */
export const shardedUri = toUri(join(modelFolder, "sharded.safetensors.index.json"));

export function toUri(path: string): string {
  return pathToFileURL(path).href;
}

/** A folder outside of the shared memory's, which ends with the test. */
export class ModelFolder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "tensord-models-"));

  /** Writes a file. @returns its path. */
  write(name: string, content: Uint8Array | string): string {
    const path = join(this.path, name);
    writeFileSync(path, content);
    return path;
  }

  /** A safetensors file of one U8 tensor `w`. */
  writeTensor(name: string, bytes: Uint8Array): string {
    const header = { w: { dtype: "U8", shape: [bytes.length], data_offsets: [0, bytes.length] } };
    return this.write(name, safetensorsFile(JSON.stringify(header), bytes));
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}
