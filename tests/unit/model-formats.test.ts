/** What each format of model files holds, plain and compressed, and that its bytes come as its header says. */

import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { ModelFile } from "../../src/loaders/formats/format.ts";
import { openModelFile } from "../../src/loaders/formats/open-model-file.ts";
import { checkMembers, streamContent, streamTensor } from "../../src/loaders/formats/stream-content.ts";
import { fileLimits } from "../../src/loaders/limits.ts";
import {
  collect,
  ggufFile,
  ggufList,
  ggufText,
  npyFile,
  npyHeader,
  readerOf,
  refusalOf,
  safetensorsFile,
  u32,
  zipFile,
} from "../harness/model-files.ts";

/** Bytes that compress badly, so that no tensor looks like another one. */
const noise = (byteSize: number, salt: number) =>
  Buffer.from(Array.from({ length: byteSize }, (_, i) => ((i + salt) * 2654435761) >>> 13));

const first = noise(8192, 1);
const second = noise(288, 2);
const array = npyFile(npyHeader("'<f4'", "(2, 1024)"), first);

const header = `{"w":{"dtype":"F32","shape":[2,1024],"data_offsets":[0,8192]},"b":{"dtype":"U8","shape":[288],"data_offsets":[8192,8480]}}`;
const files: Readonly<Record<string, { file: Buffer; data: Readonly<Record<string, Buffer>> }>> = {
  "x.safetensors": { file: safetensorsFile(header, Buffer.concat([first, second])), data: { w: first, b: second } },
  "x.gguf": {
    file: ggufFile({
      tensors: [
        { name: "q", extents: [256, 2], type: 12, begin: 8192 },
        { name: "w", extents: [1024, 2], type: 0, begin: 0 },
      ],
      data: Buffer.concat([first, second]),
    }),
    data: { w: first, q: second },
  },
  "x.npy": { file: array, data: { x: first } },
  "x.npz": {
    file: zipFile([
      { name: "plain.npy", bytes: array },
      { name: "layers/0.npy", bytes: npyFile(npyHeader("'|u1'", "(288,)"), second), isDeflated: true },
    ]),
    data: { plain: first, "layers/0": second },
  },
};
const packings: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  "": (bytes) => bytes,
  ".gz": (bytes) => gzipSync(bytes),
  ".zst": (bytes) => zstdCompressSync(bytes),
  // Several streams, one after the other, are one content.
  "-parts.gz": (bytes) => Buffer.concat([gzipSync(bytes.subarray(0, 99)), gzipSync(bytes.subarray(99))]),
  "-parts.zst": (bytes) =>
    Buffer.concat([zstdCompressSync(bytes.subarray(0, 99)), zstdCompressSync(bytes.subarray(99))]),
};

for (const [name, { file, data }] of Object.entries(files)) {
  for (const [suffix, pack] of Object.entries(packings)) {
    // The array of a .npy file is called as its file.
    const path = suffix.startsWith("-") ? `/models/${name}${suffix.slice(6)}` : `/models/${name}${suffix}`;
    test(`${name}${suffix} has its tensors and their bytes`, async () => {
      const reader = readerOf(pack(file));
      const opened = await openModelFile(reader, path);
      expect(opened).toMatchObject({ path, format: name.slice(2), byteSize: file.length } as Partial<ModelFile>);
      expect(opened.tensors.map((tensor) => tensor.name)).toEqual(Object.keys(data));
      expect(await collect(streamContent(reader, opened))).toEqual(file);
      for (const tensor of opened.tensors) {
        const bytes = data[tensor.name] as Buffer;
        expect(await collect(streamTensor(reader, opened, tensor))).toEqual(bytes);
        const { byteOffset, byteSize, member } = tensor;
        if (member?.isDeflated !== true) expect(file.subarray(byteOffset, byteOffset + byteSize)).toEqual(bytes);
      }
    });
  }
}

describe("a GGUF file", () => {
  const tensors = [{ name: "q", extents: [256, 3, 2], type: 12, begin: 0 }];

  test("has quantised blocks as bytes that say what they stand for", async () => {
    const opened = await openModelFile(readerOf(ggufFile({ tensors, data: 864 })), "/models/x.gguf");
    expect(opened.tensors).toMatchObject([
      { name: "q", dtype: "U8", shape: [2, 3, 144], byteSize: 864, logical: { type: "Q4_K", shape: [2, 3, 256] } },
    ]);
  });

  test("says of itself what is short, as text, and no long list", async () => {
    const long = fileLimits.listValues + 1;
    const pairs = [
      ["general.name", [8, ggufText("é\n")]],
      ["general.alignment", [4, u32(64)]],
      ["__proto__", [7, Buffer.of(1)]],
      ["short", ggufList(8, 2, ggufText("a"), ggufText('"'))],
      ["nested", ggufList(9, 1, u32(4), Buffer.from("0200000000000000", "hex"), u32(1), u32(2))],
      ["long", ggufList(4, long, Buffer.alloc(4 * long))],
      ["long-texts", ggufList(8, long, ...Array.from({ length: long }, () => ggufText("x")))],
    ] as const;
    const file = ggufFile({ pairs, tensors, data: 864, alignment: 64 });
    const { metadata, dataOffset } = await openModelFile(readerOf(file), "/models/x.gguf");
    expect(Object.entries(metadata)).toEqual([
      ["general.name", "é\n"],
      ["general.alignment", "64"],
      ["__proto__", "true"],
      ["short", '["a","\\""]'],
      ["nested", "[[1,2]]"],
    ]);
    expect(dataOffset % 64).toBe(0);
  });

  test("may have its last tensor padded, and no more", async () => {
    const one = [{ name: "w", extents: [1], type: 0, begin: 0 }];
    for (const [data, isWhole] of [
      [3, false],
      [4, true],
      [32, true],
      [33, false],
    ] as const) {
      const opening = openModelFile(readerOf(ggufFile({ tensors: one, data })), "/models/x.gguf");
      expect(
        await opening.then(
          () => true,
          () => false,
        ),
      ).toBe(isWhole);
    }
  });

  test("is read as far as its header goes, in few steps", async () => {
    const texts = Array.from({ length: 100_000 }, (_, i) => ggufText(`token ${i}`));
    const file = ggufFile({ pairs: [["tokens", ggufList(8, texts.length, ...texts)]], tensors, data: 864 });
    const reader = readerOf(Buffer.concat([file]));
    await openModelFile(reader, "/models/x.gguf");
    expect(reader.readBytes).toBeLessThanOrEqual(2 * file.length + fileLimits.prefixBytes);
  });
});

describe("an .npz file", () => {
  const members = [
    { name: "a.npy", bytes: array },
    { name: "b.npy", bytes: array, isDeflated: true },
  ];

  test("may have its sizes and places in 64 bits", async () => {
    const large = await openModelFile(readerOf(zipFile(members, 2, true)), "/models/x.npz");
    const plain = await openModelFile(readerOf(zipFile(members)), "/models/x.npz");
    expect(large.tensors).toEqual(plain.tensors);
  });

  test("has its checksums compared in one pass, also where it is compressed", async () => {
    const many = Array.from({ length: 20 }, (_, i) => ({ name: `${i}.npy`, bytes: array, isDeflated: i % 2 === 1 }));
    const reader = readerOf(gzipSync(zipFile(many)));
    const opened = await openModelFile(reader, "/models/x.npz.gz");
    const before = reader.readBytes;
    await checkMembers(reader, opened);
    expect(reader.readBytes - before).toBe(reader.byteSize);
    const bent = readerOf(zipFile([...many, { name: "bent.npy", bytes: array, crc: 1 }]));
    const other = await openModelFile(bent, "/models/x.npz");
    expect((await refusalOf(() => checkMembers(bent, other))).message).toContain('the array "bent" has the checksum');
  });

  test("may have a comment, also one that looks like its end", async () => {
    const zip = zipFile(members);
    const comment = Buffer.concat([zip.subarray(-22), Buffer.from("comment")]);
    zip.writeUInt16LE(comment.length, zip.length - 2);
    const opened = await openModelFile(readerOf(Buffer.concat([zip, comment])), "/models/x.npz");
    expect(opened.tensors.map(({ name }) => name)).toEqual(["a", "b"]);
  });
});

describe("a raw file", () => {
  const bytes = noise(64, 3);
  const dtype = "F32" as const;

  test("has the tensors that were given, one after the other or where they say", async () => {
    const tensors = [
      { name: "a", dtype, shape: [2, 2] },
      { name: "b", dtype, shape: [4], byteOffset: 48 },
    ];
    const opened = await openModelFile(readerOf(bytes), "/models/x", { format: "raw", tensors });
    expect(opened).toMatchObject({ format: "raw", dataOffset: 0, byteSize: 64 });
    expect(opened.tensors.map(({ name, byteOffset, byteSize }) => [name, byteOffset, byteSize])).toEqual([
      ["a", 0, 16],
      ["b", 48, 16],
    ]);
  });

  test("is bytes alone where none are given, whatever they are, and decompressed by its name", async () => {
    const gguf = (files["x.gguf"] as { file: Buffer }).file;
    for (const [path, file] of [
      ["/models/x.gguf", gguf],
      ["/models/x.onnx.gz", gzipSync(gguf)],
    ] as const) {
      const opened = await openModelFile(readerOf(file), path, { format: "raw" });
      expect(opened).toMatchObject({ format: "raw", tensors: [], byteSize: gguf.length });
      expect(await collect(streamContent(readerOf(file), opened))).toEqual(gguf);
    }
    const packed = await openModelFile(readerOf(gzipSync(gguf)), "/models/x", { format: "raw" });
    expect(packed.compression).toBe("none");
  });

  for (const [why, tensors, words] of [
    ["tensors that end before it", [{ name: "a", dtype, shape: [15] }], "want 60 by the tensors that were given"],
    ["tensors that end after it", [{ name: "a", dtype, shape: [17] }], "want 68 by the tensors that were given"],
    [
      "two tensors of one name",
      [
        { name: "a", dtype, shape: [8] },
        { name: "a", dtype, shape: [8] },
      ],
      "occurs twice",
    ],
    [
      "tensors that overlap",
      [
        { name: "a", dtype, shape: [8] },
        { name: "b", dtype, shape: [8], byteOffset: 28 },
      ],
      "want a whole number from 32",
    ],
    ["a shape that overflows", [{ name: "a", dtype, shape: [2 ** 40, 2 ** 40] }], "overflows"],
    ["a name that is none", [{ name: "", dtype, shape: [16] }], "it is empty"],
  ] as const) {
    test(`is refused with ${why}`, async () => {
      const refusal = await refusalOf(() => openModelFile(readerOf(bytes), "/models/x", { format: "raw", tensors }));
      expect(refusal.code).toBe("invalid-model-file");
      expect(refusal.message).toContain('Cannot load "/models/x": ');
      expect(refusal.message).toContain(words);
    });
  }
});

describe("a compressed file", () => {
  test("of safetensors is not decompressed to its end to be opened", async () => {
    const data = randomBytes(4 << 20);
    const text = `{"w":{"dtype":"U8","shape":[${data.length}],"data_offsets":[0,${data.length}]}}`;
    const reader = readerOf(gzipSync(safetensorsFile(text, data)));
    await openModelFile(reader, "/models/x.safetensors.gz");
    expect(reader.readBytes).toBeLessThan(data.length / 2);
  });

  test("whose source fails says what the source says", async () => {
    const file = readerOf(gzipSync(array));
    const failing = { byteSize: file.byteSize, read: () => Promise.reject(new RangeError("the disk is gone")) };
    expect(openModelFile(failing, "/models/x.npy.gz")).rejects.toThrow("the disk is gone");
    const opened = await openModelFile(file, "/models/x.npy.gz");
    expect(collect(streamContent(failing, opened))).rejects.toThrow("the disk is gone");
  });

  test("that somebody stops reading is read no further", async () => {
    const reader = readerOf(gzipSync(randomBytes(4 << 20)));
    const opened = await openModelFile(reader, "/models/x.gz", { format: "raw" });
    const before = reader.readBytes;
    for await (const _ of streamContent(reader, opened)) break;
    expect(reader.readBytes - before).toBeLessThan(reader.byteSize);
  });
});
