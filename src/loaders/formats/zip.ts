/**
 * The members of a zip archive, by the directory at its end, each with the place of its bytes. Nothing is taken from a member's own
 * header but its length and name, since only one of the two can be right. Source: PKWARE's APPNOTE 6.3.
 */

import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import { toBuffer } from "./bytes.ts";
import { type Content, readExactly } from "./content.ts";
import { checkDecompressed } from "./decompress.ts";
import { invalid, unsupported } from "./refusal.ts";

export interface ZipMember {
  readonly name: string;
  readonly isDeflated: boolean;
  readonly crc32: number;
  /** As they are stored, and once they are inflated. */
  readonly storedBytes: number;
  readonly byteSize: number;
  /** Of the header before its bytes. */
  readonly headerOffset: number;
}

const endSignature = 0x0605_4b50;
const end64Signature = 0x0606_4b50;
const locatorSignature = 0x0706_4b50;
const directorySignature = 0x0201_4b50;
const headerSignature = 0x0403_4b50;
const [endBytes, end64Bytes, locatorBytes, entryBytes, headerBytes] = [22, 56, 20, 46, 30];
const commentMaximum = 0xffff;
/** In a field of 32 bits: the value is in the extra field of 64. */
const in64 = 0xffff_ffff;
const extra64 = 1;
const [stored, deflated] = [0, 8];

/** All members, in the order of their places, which do not overlap. @throws TensordError `invalid-model-file` or `unsupported-format` */
export async function readZipDirectory(content: Content, byteSize: number): Promise<readonly ZipMember[]> {
  const { count, offset, size } = await findDirectory(content, byteSize);
  if (count > limits.regionTensors || size > limits.headerBytes) {
    const state = `its directory has ${count} members in ${size} bytes`;
    throw invalid(`${state}, want at most ${limits.regionTensors} in ${limits.headerBytes}`);
  }
  const directory = toBuffer(await readExactly(content, offset, size));
  const members: ZipMember[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let index = 0; index < count; index++) {
    const { member, next } = readEntry(directory, at);
    if (names.has(member.name)) throw invalid(`the member ${quote(member.name)} occurs twice, want each name once`);
    names.add(member.name);
    members.push(member);
    at = next;
  }
  if (at !== size) throw invalid(`its directory has ${size} bytes, want ${at} for its ${count} members`);
  members.sort((a, b) => a.headerOffset - b.headerOffset);
  let end = 0;
  for (const member of members) {
    if (member.headerOffset < end)
      throw invalid(`the member ${quote(member.name)} overlaps the one before it, want none that do`);
    end = member.headerOffset + headerBytes + member.storedBytes;
    if (end > offset) throw invalid(`the member ${quote(member.name)} ends at byte ${end}, want at most ${offset}`);
    checkDecompressed(member.byteSize, member.storedBytes);
  }
  return members;
}

/** Where the bytes of a member begin. @param end what comes after it at the soonest: the next member, or the directory. */
export async function findMemberBytes(content: Content, member: ZipMember, end: number): Promise<number> {
  const header = toBuffer(await readExactly(content, member.headerOffset, headerBytes));
  if (header.readUInt32LE() !== headerSignature) {
    throw invalid(`at byte ${member.headerOffset} there is no member, want ${quote(member.name)}`);
  }
  const nameBytes = header.readUInt16LE(26);
  const name = toBuffer(await readExactly(content, member.headerOffset + headerBytes, nameBytes));
  if (name.toString("utf8") !== member.name) {
    const state = `the member at byte ${member.headerOffset} calls itself ${quote(name.toString("utf8"))}`;
    throw invalid(`${state}, want ${quote(member.name)} as in the directory`);
  }
  const from = member.headerOffset + headerBytes + nameBytes + header.readUInt16LE(28);
  if (from + member.storedBytes <= end) return from;
  throw invalid(`the member ${quote(member.name)} ends at byte ${from + member.storedBytes}, want at most ${end}`);
}

interface Directory {
  readonly count: number;
  readonly offset: number;
  readonly size: number;
}

async function findDirectory(content: Content, byteSize: number): Promise<Directory> {
  const tailOffset = Math.max(0, byteSize - endBytes - commentMaximum - locatorBytes);
  const tail = toBuffer(await readExactly(content, tailOffset, byteSize - tailOffset));
  for (let at = tail.length - endBytes; at >= 0; at--) {
    if (tail.readUInt32LE(at) !== endSignature || at + endBytes + tail.readUInt16LE(at + 20) !== tail.length) continue;
    const disks = tail.readUInt32LE(at + 4);
    const directory = {
      count: tail.readUInt16LE(at + 10),
      size: tail.readUInt32LE(at + 12),
      offset: tail.readUInt32LE(at + 16),
    };
    const locatorAt = at - locatorBytes;
    if (locatorAt >= 0 && tail.readUInt32LE(locatorAt) === locatorSignature) {
      const offset = toExact(tail.readBigUInt64LE(locatorAt + 8));
      return checked(await readEnd64(content, offset), offset);
    }
    if (disks !== 0) throw unsupported("it is one of several parts of an archive, want one file", "Join the parts.");
    return checked(directory, tailOffset + at);
  }
  throw invalid("its directory at the end is missing, want a whole zip archive");
}

/** The directory has to end where its own end is described. */
function checked(directory: Directory, end: number): Directory {
  if (directory.offset + directory.size === end) return directory;
  throw invalid(`its directory ends at byte ${directory.offset + directory.size}, want ${end}`);
}

async function readEnd64(content: Content, offset: number): Promise<Directory> {
  const record = toBuffer(await readExactly(content, offset, end64Bytes));
  if (record.readUInt32LE() !== end64Signature)
    throw invalid(`at byte ${offset} there is no end of a directory, want it`);
  return {
    count: toExact(record.readBigUInt64LE(32)),
    size: toExact(record.readBigUInt64LE(40)),
    offset: toExact(record.readBigUInt64LE(48)),
  };
}

function readEntry(directory: Buffer, at: number): { member: ZipMember; next: number } {
  if (at + entryBytes > directory.length || directory.readUInt32LE(at) !== directorySignature) {
    throw invalid(`its directory is broken at byte ${at} of it, want a member`);
  }
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) => directory.readUInt16LE(at + field)) as [
    number,
    number,
    number,
  ];
  const extraAt = at + entryBytes + nameBytes;
  const next = extraAt + extraBytes + commentBytes;
  if (next > directory.length) throw invalid(`its directory is broken off at byte ${at} of it, want a whole member`);
  const name = directory.toString("utf8", at + entryBytes, extraAt);
  const [flags, method] = [directory.readUInt16LE(at + 8), directory.readUInt16LE(at + 10)];
  if ((flags & 1) !== 0)
    throw unsupported(`the member ${quote(name)} is encrypted, want none that are`, "Save it without a password.");
  if (method !== stored && method !== deflated) {
    throw unsupported(
      `the member ${quote(name)} is packed by method ${method}, want 0 or 8`,
      "Save it with numpy.savez.",
    );
  }
  const large = readExtra64(directory.subarray(extraAt, extraAt + extraBytes));
  // In this order, and only those whose own field has no room.
  const byteSize = large(directory.readUInt32LE(at + 24));
  const storedBytes = large(directory.readUInt32LE(at + 20));
  const headerOffset = large(directory.readUInt32LE(at + 42));
  if (method === stored && byteSize !== storedBytes) {
    throw invalid(`the member ${quote(name)} is stored in ${storedBytes} bytes, want ${byteSize}`);
  }
  const member = { name, isDeflated: method === deflated, crc32: directory.readUInt32LE(at + 16) };
  return { member: { ...member, storedBytes, byteSize, headerOffset }, next };
}

/** Values of 64 bits, one after the other, for fields that say that theirs is there. */
function readExtra64(extra: Buffer): (field: number) => number {
  let values: Buffer = Buffer.alloc(0);
  for (let at = 0; at + 4 <= extra.length; at += 4 + extra.readUInt16LE(at + 2)) {
    if (extra.readUInt16LE(at) === extra64) values = extra.subarray(at + 4, at + 4 + extra.readUInt16LE(at + 2));
  }
  return (field) => {
    if (field !== in64) return field;
    if (values.length < 8) throw invalid("a member's size of 64 bits is missing from its directory, want it");
    const value = toExact(values.readBigUInt64LE());
    values = values.subarray(8);
    return value;
  };
}

function toExact(value: bigint): number {
  if (value <= BigInt(limits.regionBytes)) return Number(value);
  throw invalid(`its directory has the number ${value}, want at most ${limits.regionBytes}`);
}
