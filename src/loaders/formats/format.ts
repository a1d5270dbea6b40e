/**
 * What a model file holds, whatever its format, and how it is read to find out: by bounded ranges, never whole. Which
 * parser reads a file is `open-model-file.ts`'s business.
 */

import { TensordError } from "../../memory/error.ts";
import type { Tensor } from "../../memory/layout/layout.ts";
import { toPrintableLine } from "../../memory/naming.ts";

/** Word for word what a file is; `raw` are bytes of which only the caller says what they are. */
export type ModelFormat = "safetensors" | "gguf" | "npy" | "npz" | "raw";

/** What a whole file is packed with. */
export type Compression = "none" | "gzip" | "zstd";

/** Ranges of one file, wherever it lies. */
export interface RangeReader {
  /** Of the file, as it was when it was opened. */
  readonly byteSize: number;
  /**
   * Bytes `byteOffset` to `byteOffset + byteSize` of the file, which are the caller's to keep. Fewer only where the file ends
   * before: it shrank. Rejects with what the source says.
   */
  read(byteOffset: number, byteSize: number): Promise<Uint8Array>;
}

/** A tensor with its place in the file's content: in what the file is once it is decompressed. */
export interface FileTensor extends Pick<Tensor, "name" | "dtype" | "shape" | "byteOffset" | "byteSize" | "aligned"> {
  /** What its opaque bytes stand for: blocks of a type that has no dtype, by the format's own name, and the shape in elements. */
  readonly logical?: { readonly type: string; readonly shape: readonly number[] };
  /** Where it is one of an archive and deflated: what it occupies there, from `byteOffset`. `streamTensor` inflates it. */
  readonly deflatedByteSize?: number;
}

/** A model file as its header says, checked against the file's size. Nothing of it is in memory but this. */
export interface ModelFile {
  /** As it was asked for, for sentences. */
  readonly path: string;
  readonly format: ModelFormat;
  readonly compression: Compression;
  /** In the order of their data, which never overlap; at least one, but none of raw bytes whose tensors nobody gave. */
  readonly tensors: readonly FileTensor[];
  /** What the file says of itself, as text. Lists of more than a few values are left out. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the data begins, in the content. */
  readonly dataOffset: number;
  /** Of the content. Of one that is compressed, what has to come out: `streamContent` sees to it. */
  readonly byteSize: number;
}

/** What a parser finds in the beginning of a content. */
export type Parsed = Pick<ModelFile, "tensors" | "metadata" | "dataOffset" | "byteSize">;

/** So many bytes of the content a parser has to see before it can go on: more than it was given. */
export interface Wanted {
  readonly wantedBytes: number;
}

/**
 * Reads the beginning of a content. Pure.
 * @param byteSize of the content, or undefined where it is not known yet, so that whoever reads it to its end has to compare.
 * @throws TensordError `invalid-model-file`, `unsupported-format`, or `validation-failed` from the layout. They name no path.
 */
export type ParsePrefix = (prefix: Uint8Array, byteSize: number | undefined) => Parsed | Wanted;

/** Reads all of a range. @throws TensordError `invalid-model-file` where the file has become shorter. */
export async function readExactly(reader: RangeReader, byteOffset: number, byteSize: number): Promise<Uint8Array> {
  const bytes = await reader.read(byteOffset, byteSize);
  if (bytes.length === byteSize) return bytes;
  const state = `it has ${byteOffset + bytes.length} bytes now`;
  throw invalid(`${state}, want ${reader.byteSize} as when it was opened`, "Load it again once nobody writes to it.");
}

/** Of a file that is broken or says what cannot be. @param state what is, and what is wanted. */
export function invalid(state: string, hint = "Get the file anew: this one is damaged, or not what its name says.") {
  return new TensordError("invalid-model-file", `Cannot read its content: ${state}`, { hint });
}

/** Of a file that may be whole, and that tensord does not load. @param hint what to do instead. */
export function unsupported(state: string, hint: string) {
  return new TensordError("unsupported-format", `Cannot read its content: ${state}`, { hint });
}

const translated: readonly string[] = ["invalid-model-file", "unsupported-format", "validation-failed"];

/** The one place where what parsers throw gets the file's path. What a source throws stays as it is. */
export function withPath(path: string, error: unknown): unknown {
  if (!(error instanceof TensordError) || !translated.includes(error.code) || "path" in error.facts) return error;
  const code = error.code === "unsupported-format" ? error.code : "invalid-model-file";
  const reason = error.message.replace(/^Cannot read its content: /, "").replace(/^Cannot /, "cannot ");
  const detail = `Cannot load ${toPrintableLine(JSON.stringify(path))}: ${reason}`;
  return new TensordError(code, detail, { ...error.facts, path }, { cause: error });
}
