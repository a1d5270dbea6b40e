/**
 * The bytes of a model file that was opened: all of its content in order, or one tensor's. Each sees to it that what comes is
 * what the header said, to the last byte, and that the checksums of what is packed agree.
 */

import { crc32 } from "node:zlib";
import { quote } from "../../memory/naming.ts";
import { type Content, readPieces, toContent } from "./content.ts";
import { decompress } from "./decompress.ts";
import type { FileTensor, ModelFile, RangeReader } from "./format.ts";
import { readMember } from "./npz.ts";
import { invalid, withPath } from "./refusal.ts";

type Pieces = AsyncGenerator<Uint8Array, void, undefined>;

/**
 * The whole content, decompressed. What came before it throws is not to be used.
 * @throws TensordError `invalid-model-file` where it is shorter or longer than `file.byteSize`, or damaged.
 */
export async function* streamContent(reader: RangeReader, file: ModelFile): Pieces {
  try {
    const { compression, byteSize: want } = file;
    const pieces = readPieces(reader, 0, reader.byteSize);
    let byteSize = 0;
    for await (const piece of compression === "none" ? pieces : decompress(pieces, compression, reader.byteSize)) {
      byteSize += piece.length;
      if (byteSize > want) throw invalid(`its content goes on after byte ${want}, want its end there`);
      yield piece;
    }
    if (byteSize < want) throw invalid(`its content ends at byte ${byteSize}, want ${want}`);
  } catch (error) {
    throw withPath(file.path, error);
  }
}

/**
 * The bytes of one tensor of a file, in order. Of a file that is compressed as a whole each call begins at its start.
 * @throws TensordError `invalid-model-file` where they are not what the header, or the archive's checksum, says.
 */
export async function* streamTensor(reader: RangeReader, file: ModelFile, tensor: FileTensor): Pieces {
  try {
    await using content = toContent(reader, file.compression);
    if (tensor.member === undefined) yield* readMember(content, tensor.byteOffset, tensor.byteSize);
    else yield* streamMember(content, tensor, tensor.member);
  } catch (error) {
    throw withPath(file.path, error);
  }
}

/**
 * Reads an archive's arrays to their ends, in one pass. Files that are none have nothing to compare.
 * @throws TensordError `invalid-model-file` of an array that is not what the archive's checksum says.
 */
export async function checkMembers(reader: RangeReader, file: ModelFile): Promise<void> {
  try {
    await using content = toContent(reader, file.compression);
    for (const tensor of file.tensors) {
      if (tensor.member === undefined) continue;
      // Each piece is looked at as it comes.
      for await (const _ of streamMember(content, tensor, tensor.member));
    }
  } catch (error) {
    throw withPath(file.path, error);
  }
}

async function* streamMember(
  content: Content,
  { name, byteSize }: FileTensor,
  member: NonNullable<FileTensor["member"]>,
): Pieces {
  const stored = readMember(content, member.byteOffset, member.byteSize);
  const want = member.headerBytes + byteSize;
  let at = 0;
  let checksum = 0;
  for await (const piece of member.isDeflated ? decompress(stored, "deflate", member.byteSize) : stored) {
    if (at + piece.length > want)
      throw invalid(`the array ${quote(name)} goes on after byte ${want}, want its end there`);
    checksum = crc32(piece, checksum);
    const header = Math.max(0, member.headerBytes - at);
    at += piece.length;
    if (header < piece.length) yield header === 0 ? piece : piece.subarray(header);
  }
  if (at < want) throw invalid(`the array ${quote(name)} ends at byte ${at}, want ${want}`);
  if (checksum !== member.crc32)
    throw invalid(`the array ${quote(name)} has the checksum ${checksum}, want ${member.crc32} as its archive says`);
}
