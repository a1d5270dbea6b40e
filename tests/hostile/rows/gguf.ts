/** Hostile GGUF files. Each is a good one of 32 bytes of data but for what it tries. */

import { type GgufParts, type GgufTensor, ggufFile, ggufList, ggufText, u32, u64 } from "../../harness/model-files.ts";
import type { Row } from "./row.ts";

const w: GgufTensor = { name: "w", extents: [8], type: 0, begin: 0 };
const make = (parts: Partial<GgufParts>) => ggufFile({ tensors: [w], data: 32, ...parts });
const withTensor = (changed: Partial<GgufTensor>, data = 32) => make({ tensors: [{ ...w, ...changed }], data });
const withTensors = (...changed: readonly Partial<GgufTensor>[]) =>
  make({ tensors: changed.map((tensor, index) => ({ ...w, name: `w${index}`, ...tensor })), data: 64 });
const good = make({});
/** A file with one pair, cut off where its value begins, and these bytes instead. */
const withValue = (type: number, ...value: Uint8Array[]) => make({ pairs: [["k", [type, Buffer.concat(value)]]] });
const withAlignment = (type: number, value: Uint8Array) => make({ pairs: [["general.alignment", [type, value]]] });
const deepList = (depth: number): Buffer =>
  Buffer.concat([...Array.from({ length: depth }, () => Buffer.concat([u32(9), u64(1)])), u32(4), u64(0)]);

export const ggufRows: readonly Row[] = [
  ["empty.gguf", "No byte.", "its header is broken off", Buffer.alloc(0)],
  ["magic-wrong.gguf", "Another magic.", 'begins with "GGUX", want "GGUF"', Buffer.from(good).fill("X", 3, 4)],
  ["magic-only.gguf", "Nothing after the magic.", "its header is broken off", good.subarray(0, 4)],
  ["version-0.gguf", "A version that never was.", "its numbers are big-endian", make({ version: 0 })],
  ["version-1.gguf", "The version whose counts have 32 bits.", "its version is 1", make({ version: 1 })],
  ["version-next.gguf", "A version that nobody knows.", "its version is 4", make({ version: 4 })],
  ["big-endian.gguf", "The numbers of another machine.", "its numbers are big-endian", make({ version: 0x0300_0000 })],
  ["no-tensors.gguf", "A vocabulary alone.", "it has 0 tensors", make({ tensors: [], data: 0 })],
  [
    "tensor-count-largest.gguf",
    "2 ** 64 - 1 tensors.",
    "has 18446744073709551615 tensors",
    make({ tensorCount: 2n ** 64n - 1n }),
  ],
  [
    "tensor-count-past-end.gguf",
    "More tensors than the file has room for.",
    "has 40 tensors",
    make({ tensorCount: 40n }),
  ],
  [
    "tensor-count-one-more.gguf",
    "One tensor more than there is, read from the data.",
    "it is empty",
    make({ tensorCount: 2n }),
  ],
  ["pair-count-largest.gguf", "2 ** 63 pairs.", "has 9223372036854775808 pairs", make({ pairCount: 2n ** 63n })],
  [
    "pair-count-one-more.gguf",
    "One pair more than there is, read from the tensors.",
    "it is empty",
    make({ pairCount: 1n, tensors: [{ ...w, extents: [] }] }),
  ],
  [
    "key-length-wraps.gguf",
    "A key's length that wraps to 7 when 8 is added.",
    "has 18446744073709551615 bytes of a key",
    withKeyLength(2n ** 64n - 1n),
  ],
  ["key-past-end.gguf", "A key that is longer than the file.", "bytes of a key", withKeyLength(1000n)],
  ["key-not-utf8.gguf", "A key that is no text.", "a key at byte 32 is not UTF-8", withKey(Buffer.of(0xff))],
  [
    "key-twice.gguf",
    "Two values of one key.",
    'the key "k" occurs twice',
    make({
      pairs: [
        ["k", [4, u32(1)]],
        ["k", [4, u32(2)]],
      ],
    }),
  ],
  ["value-type-unknown.gguf", "A type after the last one.", "is of type 13, want", withValue(13, u64(0))],
  [
    "value-text-past-end.gguf",
    "A text that is longer than the file.",
    "bytes of the value",
    withValue(8, u64(2n ** 40n)),
  ],
  [
    "list-type-unknown.gguf",
    "A list of what there is not.",
    "is of type 13, want",
    withValue(9, u32(13), u64(1), u64(0)),
  ],
  [
    "list-wraps.gguf",
    "A list whose bytes wrap to 8 in 64 bits.",
    "has 2305843009213693953 values",
    withValue(9, u32(10), u64(2n ** 61n + 1n), u64(0)),
  ],
  [
    "list-past-end.gguf",
    "A list that is longer than the file.",
    "has 1000000 values",
    withValue(9, u32(0), u64(1_000_000)),
  ],
  ["list-of-texts-past-end.gguf", "The same, of texts.", "values of", withValue(9, u32(8), u64(2n ** 32n))],
  [
    "lists-deep.gguf",
    "1,000 lists in each other, for a reader that recurses.",
    "nest deeper than 4",
    withValue(9, deepList(1000)),
  ],
  [
    "lists-wide.gguf",
    "Lists in lists that are each longer than the file.",
    "values of",
    withValue(9, u32(9), u64(2), u32(9), u64(2n ** 30n)),
  ],
  ["alignment-zero.gguf", "A division by zero.", "general.alignment is 0", withAlignment(4, u32(0))],
  ["alignment-odd.gguf", "An alignment that is no power of two.", "general.alignment is 33", withAlignment(4, u32(33))],
  [
    "alignment-of-64-bits.gguf",
    "An alignment of another type.",
    "general.alignment is 32 of type 10",
    withAlignment(10, u64(32)),
  ],
  [
    "alignment-list.gguf",
    "An alignment that is a list.",
    "general.alignment is [32]",
    withAlignment(...ggufList(4, 1, u32(32))),
  ],
  [
    "alignment-text.gguf",
    "An alignment that is a text.",
    "general.alignment is 64 of type 8",
    withAlignment(8, ggufText("64")),
  ],
  [
    "name-twice.gguf",
    "Two tensors of one name.",
    'the tensor name "w" occurs twice',
    withTensors({ name: "w" }, { name: "w", begin: 32 }),
  ],
  ["name-empty.gguf", "A name that no query can ask for.", "it is empty", withTensor({ name: "" })],
  ["name-too-long.gguf", "A name of 513 bytes.", "it is too long", withTensor({ name: "w".repeat(513) })],
  ["name-nul.gguf", "A name that ends early in C.", "it has a NUL", withTensor({ name: "w\0x" })],
  [
    "name-metadata.gguf",
    "The one word that safetensors keeps for itself.",
    "keeps that word",
    withTensor({ name: "__metadata__" }),
  ],
  [
    "dimensions-five.gguf",
    "More dimensions than ggml has.",
    "has 5 dimensions",
    withTensor({ extents: [1, 1, 1, 1, 8] }),
  ],
  ["dimensions-many.gguf", "2 ** 20 dimensions that nobody wrote.", "has 1048576 dimensions", withDimensions(1 << 20)],
  [
    "shape-wraps.gguf",
    "A product of 2 ** 64, which is 0 in 64 bits.",
    "overflows",
    withTensor({ extents: [2n ** 32n, 2n ** 32n] }),
  ],
  [
    "shape-negative.gguf",
    "A dimension that a signed reader takes for -1.",
    "is 18446744073709551615, want at most",
    withTensor({ extents: [2n ** 64n - 1n] }),
  ],
  [
    "shape-hides-overflow.gguf",
    "A product that wraps before the last dimension makes it 0.",
    "overflows",
    withTensor({ extents: [2n ** 52n, 2n ** 52n, 0] }),
  ],
  [
    "shape-bytes-wrap.gguf",
    "A product that wraps only when it is counted in bytes.",
    "overflows",
    withTensor({ type: 28, extents: [2n ** 50n, 2n ** 11n] }),
  ],
  [
    "blocks-broken.gguf",
    "Rows that are no whole blocks, though all elements together are.",
    "have 128 elements of Q4_K, want a multiple of 256",
    withTensor({ type: 12, extents: [128, 2] }, 144),
  ],
  [
    "blocks-scalar.gguf",
    "One element of a block of 32.",
    "have 1 elements of Q8_0",
    withTensor({ type: 8, extents: [] }),
  ],
  ["type-removed.gguf", "A type that ggml took back.", "is of ggml's type 4", withTensor({ type: 4 })],
  [
    "type-largest.gguf",
    "A type that is -1 to some.",
    "is of ggml's type 4294967295",
    withTensor({ type: 0xffff_ffff }),
  ],
  [
    "offset-unaligned.gguf",
    "Data that begins between two alignments.",
    "begins at 4 of the data, want 0",
    withTensor({ begin: 4 }, 36),
  ],
  [
    "offset-past-end.gguf",
    "Data after the end of the file.",
    "begins at 4096 of the data",
    withTensor({ begin: 4096 }),
  ],
  [
    "offset-wraps.gguf",
    "Data that begins in the header, in 64 bits.",
    "is 18446744073709551584, want at most",
    withTensor({ begin: 2n ** 64n - 32n }),
  ],
  ["overlap.gguf", "Two tensors on the same bytes.", "begins at 0 of the data, want 32", withTensors({}, {})],
  [
    "overlap-partly.gguf",
    "Two tensors that share half of their bytes.",
    "begins at 32 of the data, want 64",
    withTensors({ extents: [16] }, { begin: 32 }),
  ],
  [
    "hole.gguf",
    "Bytes between two tensors that nobody describes.",
    "begins at 64 of the data, want 32",
    withTensors({}, { begin: 64 }),
  ],
  ["truncated.gguf", "A last tensor that is not all there.", "want", withTensor({}, 31)],
  ["trailing.gguf", "More after the last tensor than its padding.", "by its header", withTensor({}, 65)],
  ["data-missing.gguf", "A header and no data.", "by its header", withTensor({}, 0)],
];

/** A key of these bytes, and nothing that makes sense after it. */
function withKey(key: Uint8Array): Buffer {
  return Buffer.concat([good.subarray(0, 16), u64(1), u64(key.length), key, Buffer.alloc(64)]);
}

function withKeyLength(length: bigint): Buffer {
  return Buffer.concat([good.subarray(0, 16), u64(1), u64(length), Buffer.alloc(64)]);
}

function withDimensions(count: number): Buffer {
  return Buffer.concat([good.subarray(0, 24), ggufText("w"), u32(count), Buffer.alloc(64)]);
}
