/** The record in which a request is answered (docs/protocol.md, "The bell"): where in its slot the result lies, and what it is. Pure. */

import { TensordError } from "../errors.ts";
import { readShape, readSize, type Shaped, writeShape, writeSize } from "./packed.ts";

export const recordBytes = 128;
/** What is before are two words that are stored one by one: the generation that was answered, and the one that was taken. */
export const recordStart = 16;
export const done = 5;
export const failed = 6;
/** Where results begin, from the slot's first byte. */
export const resultAlignment = 8;

const at = { offset: 16, byteSize: 24, dtype: 32, kind: 34, zeros: 35, shape: 64 };

/** `offset` counts from the first byte of the slot. */
export interface AnswerRecord extends Shaped {
  readonly kind: typeof done | typeof failed;
  readonly offset: number;
}

/** A whole record, without its two words. @throws TensordError `validation-failed` for too many dimensions */
export function toRecord({ kind, offset, byteSize, ...shaped }: AnswerRecord): Buffer {
  const raw = Buffer.alloc(recordBytes);
  writeSize(raw, at.offset, offset);
  writeSize(raw, at.byteSize, byteSize);
  writeShape(raw, at.dtype, shaped);
  raw[at.kind] = kind;
  return raw;
}

/** @throws TensordError `validation-failed` */
export function parseRecord(raw: Buffer, slotBytes: number): AnswerRecord {
  const kind = raw.readUInt8(at.kind);
  if ((kind !== done && kind !== failed) || raw.subarray(at.zeros, at.shape).some((byte) => byte !== 0)) {
    throw refused(`its kind is ${kind}, want ${done} or ${failed}, and zeros`);
  }
  const [offset, byteSize] = [readSize(raw, at.offset), readSize(raw, at.byteSize)];
  if (offset % resultAlignment !== 0 || offset + byteSize > slotBytes) {
    throw refused(`${byteSize} bytes at ${offset} are no place in a slot of ${slotBytes} bytes`);
  }
  return { kind, offset, ...readShape(raw, at.dtype, byteSize) };
}

function refused(why: string): TensordError {
  return new TensordError("validation-failed", `Cannot read an answer: ${why}`);
}
