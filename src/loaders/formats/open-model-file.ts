/**
 * Opens a model file: finds out what it is, by its bytes first and its name where they say nothing, and has the parser of
 * that format read its beginning. It keeps nothing open and reads no tensor.
 */

import { limits } from "../../memory/limits.ts";
import { type ModelFile, type Parsed, type ParsePrefix, type RangeReader, readExactly, withPath } from "./format.ts";
import { parseSafetensors } from "./safetensors.ts";

/**
 * @param path names the file in sentences and by its suffix; nothing is opened by it.
 * @throws TensordError `invalid-model-file` or `unsupported-format`, with the path, the reason and what to do; and whatever
 * the reader says.
 */
export async function openModelFile(reader: RangeReader, path: string): Promise<ModelFile> {
  try {
    const parsed = await parseFrom(reader, parseSafetensors);
    return { path, format: "safetensors", compression: "none", ...parsed };
  } catch (error) {
    throw withPath(path, error);
  }
}

/** Reads as much of the beginning as the parser asks for. */
async function parseFrom(reader: RangeReader, parse: ParsePrefix): Promise<Parsed> {
  let prefix = await readExactly(reader, 0, Math.min(reader.byteSize, limits.modelPrefixBytes));
  for (;;) {
    const parsed = parse(prefix, reader.byteSize);
    if (!("wantedBytes" in parsed)) return parsed;
    prefix = await readExactly(reader, 0, parsed.wantedBytes);
  }
}
