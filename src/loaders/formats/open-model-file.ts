/**
 * Opens a model file: finds out what it is, by its bytes first and its name where they say nothing, and has the parser of
 * that format read its beginning. It keeps nothing open and reads no tensor.
 */

import { fileLimits } from "../limits.ts";
import { toLatin1 } from "./bytes.ts";
import { CompressedContent, type Content, compressionOf, readExactly, toContent } from "./content.ts";
import { checkDecompressed } from "./decompress.ts";
import { refuseForeignBytes, refuseForeignName } from "./foreign.ts";
import type { Compression, ModelFile, ModelFormat, Parsed, ParsePrefix, RangeReader } from "./format.ts";
import { parseGguf } from "./gguf.ts";
import { parseNpy } from "./npy.ts";
import { readNpz } from "./npz.ts";
import { type RawTensor, toRaw } from "./raw.ts";
import { withPath } from "./refusal.ts";
import { parseSafetensors } from "./safetensors.ts";

/** What a caller knows of a file. */
export interface AskedFormat {
  /** `raw`: the file is taken for bytes, whatever is in it, and decompressed only where its name says that it is compressed. */
  readonly format?: "raw" | undefined;
  /** Of a raw file. */
  readonly tensors?: readonly RawTensor[] | undefined;
}

/**
 * Opens a file of any format. Up to 100 MB are read and parsed at once, which takes seconds: not a thing for the event loop. A
 * compressed GGUF, `.npz` or raw file is decompressed once to the end, to find out how long it is.
 * @param path names the file in sentences, and by its suffix; nothing is opened by it.
 * @throws TensordError `invalid-model-file` or `unsupported-format`, with the path, the reason and what to do; and whatever
 * the reader says.
 */
export async function openModelFile(reader: RangeReader, path: string, asked: AskedFormat = {}): Promise<ModelFile> {
  try {
    const begin = await toContent(reader, "none").read(0, fileLimits.prefixBytes);
    const compression = asked.format === "raw" ? compressionOfName(path) : compressionOf(begin);
    await using content = toContent(reader, compression);
    const prefix = compression === "none" ? begin : await content.read(0, fileLimits.prefixBytes);
    const format = asked.format ?? formatOf(prefix, withoutPacking(path));
    const parsed = await parse(content, prefix, format, path, asked.tensors ?? []);
    if (compression !== "none") checkDecompressed(parsed.byteSize, reader.byteSize);
    return { path, format, compression, ...parsed };
  } catch (error) {
    throw withPath(path, error);
  }
}

function compressionOfName(path: string): Compression {
  if (/\.gz$/i.test(path)) return "gzip";
  return /\.zst$/i.test(path) ? "zstd" : "none";
}

function withoutPacking(path: string): string {
  return path.replace(/\.(gz|zst)$/i, "");
}

/** @param path without the suffix of a compression. */
function formatOf(prefix: Uint8Array, path: string): ModelFormat {
  const text = toLatin1(prefix, 16);
  if (text.startsWith("GGUF")) return "gguf";
  if (text.startsWith("\x93NUMPY")) return "npy";
  if (text.startsWith("PK\x03\x04") || text.startsWith("PK\x05\x06")) return "npz";
  // A length below 2 ** 32, and the object: no pickle has such a beginning.
  if (text.startsWith("\0\0\0\0{", 4)) return "safetensors";
  refuseForeignBytes(prefix);
  const [, suffix = ""] = /\.(safetensors|gguf|npy|npz)$/i.exec(path) ?? [];
  return suffix === "" ? refuseForeignName(path) : (suffix.toLowerCase() as ModelFormat);
}

async function parse(
  content: Content,
  prefix: Uint8Array,
  format: ModelFormat,
  path: string,
  given: readonly RawTensor[],
): Promise<Parsed> {
  if (format === "safetensors") return await parseFrom(content, prefix, parseSafetensors, content.byteSize);
  if (format === "npy") {
    const name = toArrayName(path);
    return await parseFrom(content, prefix, (bytes, size) => parseNpy(bytes, size, name), content.byteSize);
  }
  const byteSize = content.byteSize ?? (await measure(content));
  if (format === "gguf") return await parseFrom(content, prefix, parseGguf, byteSize);
  return format === "npz" ? await readNpz(content, byteSize) : toRaw(given, byteSize);
}

async function measure(content: Content): Promise<number> {
  if (!(content instanceof CompressedContent)) throw new TypeError("only what is compressed has to be measured");
  return await content.measure();
}

/** Has a parser see as much of the beginning as it asks for. */
async function parseFrom<Size extends number | undefined>(
  content: Content,
  begin: Uint8Array,
  parsePrefix: ParsePrefix<Size>,
  byteSize: Size,
): Promise<Parsed> {
  let prefix = begin;
  for (;;) {
    const parsed = parsePrefix(prefix, byteSize);
    if (!("wantedBytes" in parsed)) return parsed;
    const more = await readExactly(content, prefix.length, parsed.wantedBytes - prefix.length);
    prefix = Buffer.concat([prefix, more]);
  }
}

/** What the array of a `.npy` file is called: as the file, without its suffixes. */
function toArrayName(path: string): string {
  return withoutPacking(path.slice(path.lastIndexOf("/") + 1)).replace(/\.npy$/i, "");
}
