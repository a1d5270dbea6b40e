/**
 * A region's tensors as descriptors list them: written once, when they are laid out or read from a file, and from then on
 * counted, handed out as bytes, and opened one at a time by name. Nobody gets the list, which may be long: few tensors are
 * held in memory, as here, and many in a file (`storage/tensor-files.ts`). Pure.
 */

import assert from "node:assert/strict";
import type { Dtype } from "./dtype.ts";
import { type Logical, type Tensor, type TensorDifference, type TensorSpec, tensorDifference } from "./layout.ts";

/** A tensor in the JSON of `docs/protocol.md`. `name` is its first member: `find` relies on it. */
interface ListedTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byte_offset: number;
  readonly byte_size: number;
  readonly aligned: boolean;
  readonly alias_of: string | null;
  readonly logical: Logical | null;
}

/** The list of a region's tensors, wherever it is. */
export interface TensorList {
  readonly count: number;
  /** Of the JSON array. */
  readonly byteSize: number;
  /** What it takes of the memory that the region is charged for, in a file of its own; 0 of one in memory. */
  readonly fileBytes: number;
  /** What the journal's row has of it: all, or nothing of one that has a file. */
  readonly rowBytes: Uint8Array;
  /** A part of the JSON array, in UTF-8. Not to be written to. */
  read(byteOffset: number, byteSize: number): Uint8Array;
  /** The tensor of this name, without a look at the others. */
  find(name: string): Tensor | undefined;
}

export class Tensors implements TensorList {
  static readonly none = new Tensors(0, Buffer.from("[]"));
  readonly count: number;
  /** A JSON array in UTF-8. Not to be written to. */
  readonly bytes: Uint8Array;

  readonly fileBytes = 0;

  private constructor(count: number, bytes: Uint8Array) {
    this.count = count;
    this.bytes = bytes;
  }

  get byteSize(): number {
    return this.bytes.byteLength;
  }

  get rowBytes(): Uint8Array {
    return this.bytes;
  }

  static of(tensors: readonly Tensor[]): Tensors {
    const text = `[${tensors.map((tensor) => JSON.stringify(toListed(tensor))).join(",")}]`;
    return new Tensors(tensors.length, Buffer.from(text));
  }

  /** What was written once before. @throws SyntaxError or AssertionError if it is not that. */
  static parse(count: number, bytes: Uint8Array): Tensors {
    const list: unknown = JSON.parse(toBuffer(bytes).toString("utf8"));
    assert(Array.isArray(list) && list.length === count, `a list has ${count} tensors`);
    return new Tensors(count, bytes);
  }

  /** What a Worker has written, of which nothing is to be checked. */
  static written(count: number, bytes: Uint8Array): Tensors {
    return new Tensors(count, bytes);
  }

  read(byteOffset: number, byteSize: number): Uint8Array {
    return this.bytes.subarray(byteOffset, byteOffset + byteSize);
  }

  find(name: string): Tensor | undefined {
    const list = toBuffer(this.bytes);
    // Inside a string every quote is escaped, so this stands nowhere but at a tensor's beginning.
    const begin = list.indexOf(toBeginning(name));
    return begin === -1 ? undefined : readTensor(list.subarray(begin));
  }

  /** What keeps them apart from what is `asked` for, or undefined. */
  differenceFrom(asked: readonly TensorSpec[]): TensorDifference | undefined {
    return tensorDifference(asked, JSON.parse(toBuffer(this.bytes).toString("utf8")) as ListedTensor[]);
  }

  /** What has to be asked for to get them once more. */
  toSpecs(): readonly TensorSpec[] {
    const listed = JSON.parse(toBuffer(this.bytes).toString("utf8")) as ListedTensor[];
    const begins = new Map(listed.map(({ name, byte_offset }) => [name, byte_offset]));
    return listed.map(({ name, dtype, shape, byte_offset, alias_of, logical }) => {
      const spec = { name, dtype, shape, ...(logical !== null && { logical }) };
      if (alias_of === null) return spec;
      const aliasByteOffset = byte_offset - (begins.get(alias_of) ?? byte_offset);
      return { ...spec, aliasOf: alias_of, aliasByteOffset };
    });
  }
}

/** How the text of a tensor of this name begins, and no other's. */
export function toBeginning(name: string): string {
  return `{"name":${JSON.stringify(name)},`;
}

/** @param text of a list, from where a tensor begins to where it is over, or further. */
export function readTensor(text: Buffer): Tensor {
  const next = text.indexOf(',{"name":');
  return toTensor(JSON.parse(text.toString("utf8", 0, next === -1 ? text.lastIndexOf("]") : next)));
}

function toListed({ name, dtype, shape, byteOffset, byteSize, aligned, aliasOf, logical }: Tensor): ListedTensor {
  const place = { byte_offset: byteOffset, byte_size: byteSize, aligned };
  return { name, dtype, shape, ...place, alias_of: aliasOf ?? null, logical: logical ?? null };
}

function toTensor({ name, dtype, shape, byte_offset, byte_size, aligned, alias_of, logical }: ListedTensor): Tensor {
  const tensor = { name, dtype, shape, byteOffset: byte_offset, byteSize: byte_size, aligned };
  return { ...tensor, ...(alias_of !== null && { aliasOf: alias_of }), ...(logical !== null && { logical }) };
}

/** The same memory. */
function toBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
