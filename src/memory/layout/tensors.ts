/**
 * A region's tensors as descriptors list them: written once, when they are laid out or read from a file, and from then on
 * counted, handed out as bytes, and opened one at a time by name. Nobody gets the list, which may be long. Pure.
 */

import assert from "node:assert/strict";
import type { Dtype } from "./dtype.ts";
import { type Tensor, type TensorDifference, type TensorSpec, tensorDifference } from "./layout.ts";

/** A tensor in the JSON of `docs/protocol.md`. `name` is its first member: `find` relies on it. */
interface ListedTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byte_offset: number;
  readonly byte_size: number;
  readonly aligned: boolean;
  readonly alias_of: string | null;
  readonly logical: null;
}

export class Tensors {
  static readonly none = new Tensors(0, Buffer.from("[]"));
  readonly count: number;
  /** A JSON array in UTF-8. Not to be written to. */
  readonly bytes: Uint8Array;

  private constructor(count: number, bytes: Uint8Array) {
    this.count = count;
    this.bytes = bytes;
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

  /** The tensor of this name, without a look at the others. */
  find(name: string): Tensor | undefined {
    const list = toBuffer(this.bytes);
    // Inside a string every quote is escaped, so this stands nowhere but at a tensor's beginning.
    const begin = list.indexOf(`{"name":${JSON.stringify(name)},`);
    if (begin === -1) return undefined;
    const next = list.indexOf(',{"name":', begin);
    return toTensor(JSON.parse(list.toString("utf8", begin, next === -1 ? list.length - 1 : next)));
  }

  /** What keeps them apart from what is `asked` for, or undefined. */
  differenceFrom(asked: readonly TensorSpec[]): TensorDifference | undefined {
    return tensorDifference(asked, JSON.parse(toBuffer(this.bytes).toString("utf8")) as ListedTensor[]);
  }
}

function toListed({ name, dtype, shape, byteOffset, byteSize, aligned, aliasOf }: Tensor): ListedTensor {
  const place = { byte_offset: byteOffset, byte_size: byteSize, aligned };
  return { name, dtype, shape, ...place, alias_of: aliasOf ?? null, logical: null };
}

function toTensor({ name, dtype, shape, byte_offset, byte_size, aligned, alias_of }: ListedTensor): Tensor {
  const tensor = { name, dtype, shape, byteOffset: byte_offset, byteSize: byte_size, aligned };
  return alias_of === null ? tensor : { ...tensor, aliasOf: alias_of };
}

/** The same memory. */
function toBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
