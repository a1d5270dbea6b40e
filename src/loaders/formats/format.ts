/**
 * What a model file holds, whatever its format, and how it is read to find out: by bounded ranges, never whole. Which
 * parser reads a file is `open-model-file.ts`'s business.
 */

import type { Tensor } from "../../memory/layout/layout.ts";

/** What a file is; of `raw` bytes only the caller says what they are. */
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
export interface FileTensor extends Omit<Tensor, "aliasOf"> {
  /** Of one in an archive. Only `streamTensor` reads one that is deflated. */
  readonly member?: ArchiveMember;
}

/** A file of its own in an archive, in which a tensor comes last. */
export interface ArchiveMember {
  /** Where its bytes begin in the content, and how many there are as they are stored. */
  readonly byteOffset: number;
  readonly byteSize: number;
  readonly isDeflated: boolean;
  /** What comes before the tensor, once it is inflated. */
  readonly headerBytes: number;
  /** Of the whole member, once it is inflated. */
  readonly crc32: number;
}

/** A model file as its header says, checked against the file's size. Nothing of it is in memory but this. */
export interface ModelFile {
  /** As it was asked for, for sentences. */
  readonly path: string;
  readonly format: ModelFormat;
  readonly compression: Compression;
  /** In the order of their data, which never overlap; at least one, but none of raw bytes whose tensors nobody gave. */
  readonly tensors: readonly FileTensor[];
  /** What the file says of itself, as text. Long lists and long texts are left out. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the data begins, in the content. */
  readonly dataOffset: number;
  /** Of the content. Of one that is compressed, what has to come out: `streamContent` sees to it. */
  readonly byteSize: number;
}

/** What a parser finds in a content. */
export type Parsed = Pick<ModelFile, "tensors" | "metadata" | "dataOffset" | "byteSize">;

/** So many bytes of the content a parser has to see before it can go on: more than it was given. */
export interface Wanted {
  readonly wantedBytes: number;
}

/**
 * Reads the beginning of a content of `byteSize` bytes. Pure.
 * @param byteSize undefined where nobody knows yet how long a compressed content is; only formats whose header says it get that.
 * @throws TensordError `invalid-model-file`, `unsupported-format`, or `validation-failed` from the layout. They name no path.
 */
export type ParsePrefix<Size = number> = (prefix: Uint8Array, byteSize: Size) => Parsed | Wanted;
