/** Where the bell of a ring has what (docs/protocol.md, "The bell"), in bytes from the start of the file. Pure arithmetic. */

import { quote } from "../check/value.ts";
import { TensordError } from "../errors.ts";
import { maxSlots, slotOffset } from "./ring-layout.ts";

export const entryBytes = 128;
export const headerBytes = 24;
/** The owner write-locks it for as long as the ring lives: beside the bytes of leases and writers. */
export const ownerByte = (1n << 62n) + (1n << 60n);
/** So that no line of the processor's cache is two sides'. */
export const lineBytes = 64;

const layout = 2;
const magic = 0x32425354; // "TSB2"
const slotAlignment = 8;
const at = { layout: 4, slots: 8, entries: 12, slotBytes: 16, tail: 64, wanted: 128, entry: 256 };

export interface BellLayout {
  readonly slots: number;
  readonly slotBytes: number;
  /** A power of two. */
  readonly entries: number;
  readonly byteOffset: number;
  readonly byteSize: number;
  readonly base: number;
  readonly tail: number;
  readonly wanted: number;
  readonly firstEntry: number;
  readonly firstRecord: number;
}

export function toBellLayout(slots: number, slotBytes: number): BellLayout {
  let entries = 2;
  while (entries < 2 * slots) entries *= 2;
  const byteOffset = slotOffset(slots, slots, slotBytes);
  const base = toBase(byteOffset);
  return {
    slots,
    slotBytes,
    entries,
    byteOffset,
    byteSize: at.entry + lineBytes + entryBytes * (entries + slots),
    base,
    tail: base + at.tail,
    wanted: base + at.wanted,
    firstEntry: base + at.entry,
    firstRecord: base + at.entry + entryBytes * entries,
  };
}

/** Where a bell counts from that is a tensor at `byteOffset` of its file. */
export function toBase(byteOffset: number): number {
  return Math.ceil(byteOffset / lineBytes) * lineBytes;
}

/** What stands at its base. */
export function toHeader({ slots, entries, slotBytes }: BellLayout): Buffer {
  const raw = Buffer.alloc(headerBytes);
  raw.writeUInt32LE(magic, 0);
  raw.writeUInt32LE(layout, at.layout);
  raw.writeUInt32LE(slots, at.slots);
  raw.writeUInt32LE(entries, at.entries);
  raw.writeBigUInt64LE(BigInt(slotBytes), at.slotBytes);
  return raw;
}

/**
 * The layout that a bell says of itself, which is the tensor at `byteOffset` of `byteSize` bytes.
 * @throws TensordError `validation-failed` if it contradicts that, `feature-unavailable` if it is a later one
 */
export function parseHeader(raw: Buffer, byteOffset: number, byteSize: number, region: string): BellLayout {
  const refused = `Cannot receive from ring ${region}`;
  const seen = raw.readUInt32LE(at.layout);
  if (raw.readUInt32LE(0) !== magic || seen < layout) {
    throw new TensordError(
      "validation-failed",
      `${refused}: what the reference refers to begins with ${quote(raw.toString("latin1", 0, 4))} and layout ${seen}, want ` +
        `"TSB2" and ${layout}`,
      { hint: "send ring.ref(), which refers to the ring's bell, and not the reference of a slot" },
    );
  }
  if (seen > layout) {
    throw new TensordError("feature-unavailable", `${refused}: its bell has layout ${seen}, want ${layout}`, {
      hint: "is there a newer version of the package? References of its slots are opened as ever: client.open",
    });
  }
  const slots = raw.readUInt32LE(at.slots);
  const entries = raw.readUInt32LE(at.entries);
  const slotBytes = Number(raw.readBigUInt64LE(at.slotBytes));
  if (slots >= 1 && slots <= maxSlots && slotBytes > 0 && slotBytes % slotAlignment === 0) {
    const found = toBellLayout(slots, slotBytes);
    const isWhole = Number.isSafeInteger(found.byteOffset + found.byteSize);
    if (isWhole && found.entries === entries && found.byteOffset === byteOffset && found.byteSize === byteSize)
      return found;
  }
  throw new TensordError(
    "validation-failed",
    `${refused}: its bell says ${slots} slots of ${slotBytes} bytes and ${entries} entries, which is no ring with a bell of ` +
      `${byteSize} bytes at ${byteOffset}`,
  );
}
