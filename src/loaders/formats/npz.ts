/** A `.npz` file: a zip archive of `.npy` files, each an array. Members may be deflated, each by itself. */

import { elementBytes } from "../../memory/layout/aliases.ts";
import { checkTensorName } from "../../memory/layout/tensor-name.ts";
import { quote } from "../../memory/naming.ts";
import { fileLimits } from "../limits.ts";
import { toBuffer } from "./bytes.ts";
import { type Content, readExactly } from "./content.ts";
import { decompress } from "./decompress.ts";
import { pickleHint } from "./foreign.ts";
import type { ArchiveMember, FileTensor, Parsed } from "./format.ts";
import { parseNpy } from "./npy.ts";
import { invalid, unsupported, withMember } from "./refusal.ts";
import { findMemberBytes, readZipDirectory, type ZipMember } from "./zip.ts";

const suffix = ".npy";

/** @throws TensordError `invalid-model-file`, `unsupported-format`, or `validation-failed` of a name or shape. */
export async function readNpz(content: Content, byteSize: number): Promise<Parsed> {
  const members = await readZipDirectory(content, byteSize);
  refuseOthers(members);
  const tensors: FileTensor[] = [];
  for (const [index, member] of members.entries()) {
    const end = members[index + 1]?.headerOffset ?? byteSize;
    try {
      tensors.push(await readTensor(content, member, await findMemberBytes(content, member, end)));
    } catch (error) {
      throw withMember(member.name, error);
    }
  }
  return { tensors, metadata: {}, dataOffset: tensors[0]?.byteOffset ?? 0, byteSize };
}

function refuseOthers(members: readonly ZipMember[]): void {
  const pickle = members.find(({ name }) => /(^|\/)data\.pkl$|\.(pkl|pickle)$/.test(name));
  if (pickle !== undefined) {
    throw unsupported(`it is an archive with a pickle in it (${quote(pickle.name)}), want tensors alone`, pickleHint);
  }
  if (members.length === 0) throw invalid("it is an archive of 0 members, want at least 1");
  const other = members.find(({ name }) => !name.endsWith(suffix));
  if (other === undefined) return;
  throw unsupported(
    `it is a zip archive with ${quote(other.name)} in it, want .npy files alone`,
    "Save the arrays with numpy.savez, or load the file that has the weights.",
  );
}

async function readTensor(content: Content, member: ZipMember, byteOffset: number): Promise<FileTensor> {
  const name = member.name.slice(0, -suffix.length);
  checkTensorName(name);
  const { isDeflated, storedBytes, crc32 } = member;
  const prefixBytes = Math.min(member.byteSize, fileLimits.npyPrefixBytes);
  const prefix = isDeflated
    ? await inflatePrefix(content, byteOffset, storedBytes, prefixBytes)
    : await readExactly(content, byteOffset, prefixBytes);
  const parsed = parseMember(prefix, member, name);
  const [tensor] = parsed.tensors as readonly [FileTensor];
  const headerBytes = parsed.dataOffset;
  const place: ArchiveMember = { byteOffset, byteSize: storedBytes, isDeflated, headerBytes, crc32 };
  // Of what is deflated no byte of the tensor itself is in the content.
  const at = isDeflated ? byteOffset : byteOffset + headerBytes;
  return { ...tensor, byteOffset: at, aligned: at % elementBytes(tensor.dtype) === 0, member: place };
}

function parseMember(prefix: Uint8Array, { name, byteSize }: ZipMember, tensorName: string): Parsed {
  const parsed = parseNpy(prefix, byteSize, tensorName);
  // Whatever header NumPy reads is in the prefix.
  if (!("wantedBytes" in parsed)) return parsed;
  throw invalid(`the header of the member ${quote(name)} is too long, want at most ${fileLimits.npyHeaderBytes} bytes`);
}

/** The first bytes of a deflated member, from no more than a few pieces of it. */
async function inflatePrefix(
  content: Content,
  from: number,
  storedBytes: number,
  byteSize: number,
): Promise<Uint8Array> {
  const prefix = Buffer.alloc(byteSize);
  let filled = 0;
  for await (const piece of decompress(readMember(content, from, storedBytes), "deflate", storedBytes)) {
    filled += toBuffer(piece).copy(prefix, filled);
    if (filled === byteSize) return prefix;
  }
  throw invalid(`a member inflates to ${filled} bytes, want ${byteSize} and more`);
}

/** A member's bytes as they are stored, in pieces. */
export async function* readMember(
  content: Content,
  byteOffset: number,
  byteSize: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const end = byteOffset + byteSize;
  for (let at = byteOffset; at < end; at += fileLimits.pieceBytes) {
    yield await readExactly(content, at, Math.min(fileLimits.pieceBytes, end - at));
  }
}
