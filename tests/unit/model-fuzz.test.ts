/**
 * Whatever the bytes of a model file are, it is opened or refused: by its path, with a hint, and never by an error of our own. What is
 * opened holds what it promises: tensors inside of it that do not overlap, and bytes that come as they are.
 */

import { describe, expect, test } from "bun:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import type { ModelFile } from "../../src/loaders/formats/format.ts";
import { openModelFile } from "../../src/loaders/formats/open-model-file.ts";
import { streamContent, streamTensor } from "../../src/loaders/formats/stream-content.ts";
import { TensordError } from "../../src/memory/error.ts";
import { tensorByteSize } from "../../src/memory/layout/layout.ts";
import {
  collect,
  ggufFile,
  ggufList,
  ggufText,
  npyFile,
  npyHeader,
  readerOf,
  safetensorsFile,
  u32,
  zipFile,
} from "../harness/model-files.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";

const rounds = roundsOf("model-files");
const deadlineMs = deadlineMsOf(rounds, 20);

const array = npyFile(npyHeader("'<f4'", "(2, 3)"), 24);
const small: Readonly<Record<string, Buffer>> = {
  safetensors: safetensorsFile(
    '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}',
    11,
  ),
  gguf: ggufFile({
    pairs: [
      ["general.architecture", [8, ggufText("llama")]],
      ["tokens", ggufList(8, 2, ggufText("a"), ggufText("b"))],
      ["scores", ggufList(6, 2, u32(0), u32(1))],
    ],
    tensors: [
      { name: "a", extents: [4, 2], type: 0, begin: 0 },
      { name: "q", extents: [32], type: 8, begin: 32 },
    ],
    data: 66,
  }),
  npy: array,
  npz: zipFile([
    { name: "a.npy", bytes: array },
    { name: "b.npy", bytes: array, isDeflated: true },
  ]),
};
const packings = [
  (bytes: Buffer) => bytes,
  (bytes: Buffer) => gzipSync(bytes),
  (bytes: Buffer) => zstdCompressSync(bytes),
];

/** What a broken writer, a broken disk or an attacker does to a file. */
type Change = (bytes: Buffer) => Buffer;
const at = fc.nat({ max: 2 ** 31 });
const telling = [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x7b, 0x7d, 0x5b, 0x2c];
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(at, fc.oneof(fc.constantFrom(...telling), fc.nat({ max: 255 }))).map(
    ([where, value]): Change =>
      (bytes) => {
        if (bytes.length > 0) bytes[where % bytes.length] = value;
        return bytes;
      },
  ),
  fc
    .tuple(
      at,
      fc.constantFrom(0n, 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 32n),
    )
    .map(
      ([where, value]): Change =>
        (bytes) => {
          if (bytes.length >= 8) bytes.writeBigUInt64LE(value, where % (bytes.length - 7));
          return bytes;
        },
    ),
  at.map(
    (where): Change =>
      (bytes) =>
        bytes.subarray(0, where % (bytes.length + 1)),
  ),
  fc.tuple(at, at).map(
    ([from, to]): Change =>
      (bytes) => {
        const [a, b] = [from % (bytes.length + 1), to % (bytes.length + 1)];
        return Buffer.concat([bytes.subarray(0, Math.min(a, b)), bytes.subarray(Math.max(a, b))]);
      },
  ),
  fc.tuple(at, fc.uint8Array({ maxLength: 40 })).map(
    ([where, more]): Change =>
      (bytes) => {
        const middle = where % (bytes.length + 1);
        return Buffer.concat([bytes.subarray(0, middle), more, bytes.subarray(middle)]);
      },
  ),
);
const changes = fc.array(change, { minLength: 1, maxLength: 4 });
const apply = (bytes: Buffer, all: readonly Change[]) =>
  all.reduce<Buffer>((changed, next) => next(changed), Buffer.from(bytes));

/** Opens and reads it all. @returns undefined of a file that was refused as it should be. */
async function load(bytes: Buffer, path: string): Promise<ModelFile | undefined> {
  const reader = readerOf(bytes);
  try {
    const opened = await openModelFile(reader, path);
    await checkOpened(reader, opened);
    return opened;
  } catch (error) {
    if (!(error instanceof TensordError)) throw error;
    expect(["invalid-model-file", "unsupported-format"]).toContain(error.code);
    expect(error.message).toStartWith(`Cannot load ${JSON.stringify(path)}: `);
    expect(error.message.length).toBeLessThan(1500);
    expect(error.facts.hint).toBeString();
    return undefined;
  }
}

async function checkOpened(reader: ReturnType<typeof readerOf>, opened: ModelFile): Promise<void> {
  const content = await collect(streamContent(reader, opened));
  expect(content.length).toBe(opened.byteSize);
  expect(opened.tensors.length).toBeGreaterThan(0);
  expect(new Set(opened.tensors.map(({ name }) => name)).size).toBe(opened.tensors.length);
  let end = opened.dataOffset;
  for (const tensor of opened.tensors) {
    expect(tensorByteSize(tensor)).toBe(tensor.byteSize);
    expect(tensor.byteOffset).toBeGreaterThanOrEqual(end);
    end = tensor.byteOffset + (tensor.member?.isDeflated === true ? tensor.member.byteSize : tensor.byteSize);
    expect(end).toBeLessThanOrEqual(content.length);
    const bytes = await collect(streamTensor(reader, opened, tensor));
    expect(bytes.length).toBe(tensor.byteSize);
    if (tensor.member?.isDeflated !== true) expect(bytes).toEqual(content.subarray(tensor.byteOffset, end));
  }
}

describe("a model file", () => {
  test("of each format opens before it is changed", async () => {
    for (const [format, bytes] of Object.entries(small)) {
      for (const pack of packings) expect(await load(pack(bytes), `/models/x.${format}`)).toMatchObject({ format });
    }
  });

  for (const format of Object.keys(small)) {
    test(
      `of ${format} with bytes changed anywhere is opened or refused`,
      async () => {
        const property = fc.asyncProperty(changes, async (all) => {
          await load(apply(small[format] as Buffer, all), `/models/x.${format}`);
        });
        await fc.assert(property, { numRuns: rounds });
      },
      deadlineMs,
    );
  }

  test(
    "that is compressed, with bytes changed before and after, is opened or refused",
    async () => {
      const property = fc.asyncProperty(
        fc.constantFrom(...Object.keys(small)),
        fc.constantFrom(...packings),
        fc.array(change, { maxLength: 2 }),
        fc.array(change, { maxLength: 2 }),
        async (format, pack, before, after) => {
          await load(apply(pack(apply(small[format] as Buffer, before)), after), `/models/x.${format}`);
        },
      );
      await fc.assert(property, { numRuns: rounds });
    },
    deadlineMs,
  );

  test(
    "of any bytes, by any name, is opened or refused",
    async () => {
      const magic = fc.constantFrom(
        "",
        "GGUF\x03\0\0\0",
        "\x93NUMPY\x01\0",
        "PK\x03\x04",
        "\x1f\x8b\x08",
        "\x28\xb5\x2f\xfd",
        "\x40\0\0\0\0\0\0\0{",
      );
      const bytes = fc.tuple(magic, fc.uint8Array({ maxLength: 300 }));
      const suffix = fc.constantFrom(
        "",
        ".safetensors",
        ".gguf",
        ".npy",
        ".npz",
        ".gz",
        ".zst",
        ".pt",
        ".bin",
        ".onnx",
      );
      const property = fc.asyncProperty(bytes, suffix, async ([begin, rest], name) => {
        await load(Buffer.concat([Buffer.from(begin, "latin1"), rest]), `/models/x${name}`);
      });
      await fc.assert(property, { numRuns: rounds });
    },
    deadlineMs,
  );
});

describe("the header of a model file", () => {
  const number = fc.oneof(
    fc.constantFrom(0n, 1n, 32n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
    fc.nat({ max: 64 }).map(BigInt),
  );
  const name = fc.oneof(
    fc.constantFrom("w", "", "__proto__", "__metadata__", "\0", "x".repeat(600)),
    fc.string({ unit: "binary", maxLength: 8 }),
  );

  test(
    "of GGUF, with whatever it may say, is opened or refused",
    async () => {
      const tensor = fc.record({
        name: name.filter((text) => text.isWellFormed()),
        extents: fc.array(number, { maxLength: 5 }),
        type: fc.oneof(fc.constantFrom(0, 1, 8, 12, 24, 30), fc.nat({ max: 50 })),
        begin: number,
      });
      const value = fc.oneof(
        fc.tuple(fc.nat({ max: 14 }), fc.uint8Array({ maxLength: 24 })),
        fc.tuple(fc.nat({ max: 14 }), number).map(([type, count]) => ggufList(type, count, Buffer.alloc(64))),
      );
      const pair = fc.tuple(fc.constantFrom("general.alignment", "k", ""), value);
      const property = fc.asyncProperty(
        fc.array(pair, { maxLength: 3 }),
        fc.array(tensor, { maxLength: 4 }),
        fc.nat({ max: 300 }),
        async (pairs, tensors, data) => {
          await load(ggufFile({ pairs, tensors, data }), "/models/x.gguf");
        },
      );
      await fc.assert(property, { numRuns: rounds });
    },
    deadlineMs,
  );

  test(
    "of an array, with whatever it may say, is opened or refused",
    async () => {
      const literal = fc.oneof(
        fc.constantFrom(
          "'<f4'",
          "'|O'",
          "True",
          "False",
          "None",
          "()",
          "(2, 3)",
          "(2,)",
          "[('a', '|O')]",
          "-1",
          "1e9",
          "0x10",
          "'",
        ),
        fc.array(number, { maxLength: 5 }).map((all) => `(${all.join(", ")},)`),
        fc.string({ maxLength: 12 }),
      );
      const field = fc.tuple(fc.constantFrom("descr", "fortran_order", "shape", "__proto__"), literal);
      const property = fc.asyncProperty(
        fc.array(field, { maxLength: 5 }),
        fc.nat({ max: 40 }),
        async (fields, data) => {
          const text = fields.map(([key, value]) => `'${key}': ${value}, `).join("");
          const npy = npyFile(Buffer.from(`{${text}}\n`).toString("latin1"), data);
          await load(npy, "/models/x.npy");
          await load(zipFile([{ name: "x.npy", bytes: npy, isDeflated: true }]), "/models/x.npz");
        },
      );
      await fc.assert(property, { numRuns: rounds });
    },
    deadlineMs,
  );
});
