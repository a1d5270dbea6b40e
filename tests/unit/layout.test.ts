import { describe, expect, test } from "bun:test";
import { AssertionError } from "node:assert/strict";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { type Dtype, dtypeBits, dtypes } from "../../src/memory/layout/dtype.ts";
import {
  headerByteSize,
  layOutRegion,
  parseHeader,
  type Tensor,
  type TensorSpec,
  tensorByteSize,
  tensorDifference,
} from "../../src/memory/layout/layout.ts";
import { GiB, limits } from "../../src/memory/limits.ts";

const spec = (name: string, dtype: Dtype, shape: readonly number[]): TensorSpec => ({ name, dtype, shape });
const trickyNames = ["__proto__", "constructor", "toString", "0", "10", "9", "-1", 'a"b\\c', "\n", "\u2028", "é", "😀"];

const anyName = fc.oneof(
  fc.constantFrom(...trickyNames),
  fc.string({ unit: "binary", minLength: 1, maxLength: 40 }).filter((name) => !name.includes("\0")),
);
const anySpec = fc
  .record({
    name: anyName,
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.oneof(fc.nat({ max: 5 }), fc.nat({ max: 2000 })), { maxLength: 4 }),
  })
  // An even number of elements of 4 bits, a multiple of 4 of 6 bits.
  .map(({ name, dtype, shape }) => spec(name, dtype, dtypeBits[dtype] < 8 ? [...shape, 4] : shape));
const anySpecs = fc.uniqueArray(anySpec, { selector: ({ name }) => name, minLength: 1, maxLength: 30 });
const anyMetadata = fc.dictionary(fc.string(), fc.string({ unit: "binary" }), { noNullPrototype: true });

const byPlace = (a: Tensor, b: Tensor) => a.byteOffset - b.byteOffset || a.byteSize - b.byteSize;

/** Begins of the tensors in data order, and the end: what "no holes and no overlap" means. */
function expectCovered(tensors: readonly Tensor[], dataOffset: number, byteSize: number): void {
  let end = dataOffset;
  for (const tensor of tensors.toSorted(byPlace)) {
    expect(tensor.byteOffset).toBe(end);
    end += tensor.byteSize;
  }
  expect(end).toBe(byteSize);
}

describe("layOutRegion", () => {
  test("writes exactly the bytes that the format asks for", () => {
    const specs = [spec("b", "U8", [3]), spec("10", "F32", [2, 2]), spec("2", "F32", []), spec("w", "I64", [0, 7])];
    const layout = layOutRegion(specs, { "tensord.region": "reg_x" });
    const json =
      '{"__metadata__":{"tensord.region":"reg_x"},' +
      '"w":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]},' +
      '"10":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},' +
      '"2":{"dtype":"F32","shape":[],"data_offsets":[16,20]},' +
      '"b":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}}';
    expect(Buffer.from(layout.header.subarray(0, 8)).readBigUInt64LE()).toBe(4088n);
    expect(new TextDecoder().decode(layout.header.subarray(8))).toBe(json.padEnd(4088, " "));
    expect(layout.dataOffset).toBe(4096);
    expect(layout.byteSize).toBe(4096 + 23);
    expect(layout.tensors.map(({ name, byteOffset, byteSize }) => [name, byteOffset, byteSize])).toEqual([
      ["b", 4116, 3],
      ["10", 4096, 16],
      ["2", 4112, 4],
      ["w", 4096, 0],
    ]);
  });

  test("comes back from parseHeader as it went in", () => {
    fc.assert(
      fc.property(anySpecs, anyMetadata, (specs, metadata) => {
        const layout = layOutRegion(specs, metadata);
        const parsed = parseHeader(layout.header, layout.byteSize);
        expect(parsed.dataOffset).toBe(layout.dataOffset);
        expect(Object.entries(parsed.metadata).toSorted()).toEqual(Object.entries(metadata).toSorted());
        const byName = new Map(parsed.tensors.map((tensor) => [tensor.name, tensor]));
        expect(layout.tensors.map(({ name }) => byName.get(name))).toEqual([...layout.tensors]);
        expect(parsed.tensors).toHaveLength(specs.length);
      }),
    );
  });

  test("leaves no hole, aligns every tensor, and keeps what was asked for", () => {
    fc.assert(
      fc.property(anySpecs, (specs) => {
        const { header, dataOffset, byteSize, tensors } = layOutRegion(specs, {});
        expect(header).toHaveLength(dataOffset);
        expect(dataOffset % 4096).toBe(0);
        expect(header[8]).toBe(0x7b);
        expectCovered(tensors, dataOffset, byteSize);
        expect(tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(specs);
        for (const { dtype, shape, byteOffset, byteSize: bytes, aligned } of tensors) {
          expect(bytes * 8).toBe(shape.reduce((product, dimension) => product * dimension, 1) * dtypeBits[dtype]);
          expect(byteOffset % Math.ceil(dtypeBits[dtype] / 8)).toBe(0);
          expect(aligned).toBe(true);
        }
      }),
    );
  });

  test("puts larger elements first and keeps the order asked for among equals", () => {
    fc.assert(
      fc.property(anySpecs, (specs) => {
        const layout = layOutRegion(specs, {});
        const text = new TextDecoder().decode(layout.header);
        const places = specs.map(({ name }) => text.indexOf(`${JSON.stringify(name)}:{"dtype"`));
        const order = [...specs.keys()].toSorted((a, b) => (places[a] ?? 0) - (places[b] ?? 0));
        for (const [i, at] of order.entries()) {
          const next = order[i + 1] ?? at;
          const [bits, nextBits] = [at, next].map((index) => dtypeBits[specs[index]?.dtype ?? "U8"]) as [
            number,
            number,
          ];
          expect(bits > nextBits || (bits === nextBits && at <= next)).toBe(true);
        }
      }),
    );
  });

  test("gives every tricky name its own place", () => {
    const layout = layOutRegion(
      trickyNames.map((name) => spec(name, "U8", [1])),
      { __proto__x: "y" },
    );
    expect(layout.tensors.map(({ byteOffset }) => byteOffset)).toEqual(trickyNames.map((_, i) => 4096 + i));
    expect(parseHeader(layout.header, layout.byteSize).tensors.map(({ name }) => name)).toEqual(trickyNames);
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  test("starts data on the next page when the header fills a page to its last byte, and not before", () => {
    const headerOf = (extra: number) => layOutRegion([spec("w", "U8", [1])], { k: "x".repeat(extra) });
    const spare = headerOf(0)
      .header.toReversed()
      .findIndex((byte) => byte !== 0x20);
    expect(headerOf(spare).dataOffset).toBe(4096);
    expect(headerOf(spare).header.at(-1)).toBe(0x7d);
    expect(headerOf(spare + 1).dataOffset).toBe(8192);
  });

  test("lays out regions far above 4 GiB", () => {
    const layout = layOutRegion([spec("a", "BF16", [1024, 1024, 1024, 8]), spec("b", "F32", [1])], {});
    expect(layout.byteSize).toBe(4096 + 4 + 16 * GiB);
    expect(layout.tensors[0]?.byteOffset).toBe(4100);
  });

  const refusals: [string, TensorSpec[], string][] = [
    ["no tensors", [], "it has 0 tensors"],
    ["100,001 tensors", Array.from({ length: 100_001 }, (_, i) => spec(`t${i}`, "U8", [0])), "it has 100001 tensors"],
    ["a name twice", [spec("w", "U8", [1]), spec("w", "F32", [2])], "occurs twice"],
    ["the name __metadata__", [spec("__metadata__", "U8", [1])], "keeps that word for itself"],
    ["an empty name", [spec("", "U8", [1])], "it is empty"],
    ["a NUL in a name", [spec("a\0b", "U8", [1])], "it has a NUL"],
    ["half a surrogate pair", [spec("\udc00", "U8", [1])], "half a surrogate pair"],
    ["a name of 513 bytes", [spec("x".repeat(513), "U8", [1])], "it is too long"],
    ["a name of 171 characters of 3 bytes", [spec("€".repeat(171), "U8", [1])], "it is too long"],
    ["65 dimensions", [spec("w", "U8", Array(65).fill(1))], "it has 65 dimensions"],
    ["a shape whose product overflows", [spec("w", "U8", [2 ** 27, 2 ** 27])], "overflows"],
    ["a shape that hides an overflow behind a 0", [spec("w", "U8", [2 ** 40, 2 ** 40, 0])], "overflows"],
    ["a shape that overflows in bytes only", [spec("w", "F64", [2 ** 50])], "overflows"],
    ["a negative dimension", [spec("w", "U8", [-1])], "a dimension is -1"],
    ["a fraction of a dimension", [spec("w", "U8", [1.5])], "a dimension is 1.5"],
    ["NaN for a dimension", [spec("w", "U8", [Number.NaN])], "a dimension is NaN"],
    ["a dimension past what a number holds", [spec("w", "U8", [2 ** 53])], "a dimension is 9007199254740992"],
    ["bits that fill no byte", [spec("w", "F4", [3])], "F4 of shape [3] has 12 bits, want a multiple of 8"],
    ["a sum that overflows", [spec("a", "U8", [2 ** 52]), spec("b", "U8", [2 ** 52])], "bytes and more"],
    ["a sum that overflows with the header", [spec("a", "U8", [2 ** 53 - 4096])], "bytes and more"],
  ];
  for (const [what, specs, words] of refusals) {
    test(`refuses ${what}`, () => expectRefused(() => layOutRegion(specs, {}), words));
  }

  test("leaves __metadata__ out when there is none", () => {
    expect(new TextDecoder().decode(layOutRegion([spec("w", "U8", [1])], {}).header.subarray(8, 13))).toBe('{"w":');
  });

  test("shows the beginning of a long name and what to do", () => {
    const name = `begin${"x".repeat(600)}`;
    expectRefused(() => layOutRegion([spec(name, "U8", [1])], {}), `tensor "begin${"x".repeat(59)}…": it is too long`);
    const hint = (dtype: Dtype) => failureOf(() => tensorByteSize(spec("w", dtype, [1]))).facts.hint;
    expect(hint("F4")).toBe("Ask for a number of elements that is a multiple of 2.");
    expect(hint("F6_E2M3")).toBe("Ask for a number of elements that is a multiple of 4.");
  });

  test("refuses metadata that would not come back", () => {
    expectRefused(() => layOutRegion([spec("w", "U8", [1])], { a: "\ud800" }), "metadata");
    const many = Object.fromEntries(Array.from({ length: 10_001 }, (_, i) => [`k${i}`, ""]));
    expectRefused(() => layOutRegion([spec("w", "U8", [1])], many), "metadata");
  });

  test("refuses names that are together more than 32 MiB as JSON, and says so", () => {
    // A control character takes six bytes there.
    const specs = (count: number, name: string) =>
      Array.from(
        { length: count },
        (_, index) => ({ name: `${index}`.padStart(6) + name, dtype: "U8", shape: [] }) as const,
      );
    const length = (text: string) => JSON.stringify(text).length + 6;
    for (const name of ["n".repeat(500), "\u0001".repeat(500)]) {
      const fits = Math.floor(limits.tensorNamesBytes / length(name));
      expectRefused(() => layOutRegion(specs(fits + 1, name), {}), "names");
      layOutRegion(specs(fits, name), {});
    }
  });

  test("refuses a header over the format's 100 MB", () => {
    const exact = { k: "x".repeat(limits.headerBytes) };
    expectRefused(() => layOutRegion([spec("w", "U8", [1])], exact), "its header has");
  });

  test("accepts what lies exactly at each limit", () => {
    const largest = spec("x".repeat(512), "U8", [...Array(63).fill(1), 2 ** 53 - 1 - 4096]);
    expect(layOutRegion([largest], {}).byteSize).toBe(Number.MAX_SAFE_INTEGER);
    expect(layOutRegion([spec("€".repeat(170), "U8", [])], {}).byteSize).toBe(4097);
    const many = Array.from({ length: 100_000 }, (_, i) => spec(`${i}`, "F4", [2]));
    const metadata = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, ""]));
    const layout = layOutRegion(many, metadata);
    const read = parseHeader(layout.header, layout.byteSize);
    expect(read.metadata).toEqual(metadata);
    expect(Bun.deepEquals(read.tensors, layout.tensors)).toBeTrue();
  });
});

describe("tensorByteSize", () => {
  test("goes up to what a number holds, and not a byte further", () => {
    expect(tensorByteSize(spec("w", "U8", [2 ** 53 - 1]))).toBe(Number.MAX_SAFE_INTEGER);
    expect(tensorByteSize(spec("w", "F4", [2 ** 53 - 2]))).toBe(2 ** 52 - 1);
    expectRefused(() => tensorByteSize(spec("w", "F16", [2 ** 52])), "overflows");
  });

  test("agrees with arithmetic of unlimited size, or refuses", () => {
    const dimension = fc.oneof(fc.nat({ max: 4 }), fc.nat(), fc.maxSafeNat());
    fc.assert(
      fc.property(fc.constantFrom(...dtypes), fc.array(dimension, { maxLength: 5 }), (dtype, shape) => {
        const bitsOf = (dimensions: number[]) =>
          dimensions.reduce((product, size) => product * BigInt(size), BigInt(dtypeBits[dtype]));
        const fits = bitsOf(shape.map((size) => size || 1)) <= 8n * BigInt(Number.MAX_SAFE_INTEGER);
        const act = () => tensorByteSize(spec("w", dtype, shape));
        if (!fits) expectRefused(act, "overflows");
        else if (bitsOf(shape) % 8n !== 0n) expectRefused(act, "want a multiple of 8");
        else expect(BigInt(act()) * 8n).toBe(bitsOf(shape));
      }),
    );
  });
});

describe("headerByteSize", () => {
  const prefix = (length: bigint) => new Uint8Array(new BigUint64Array([length]).buffer);

  test("is the length and its own 8 bytes", () => {
    expect(headerByteSize(prefix(2n), 10)).toBe(10);
    expect(headerByteSize(prefix(4088n), 5000)).toBe(4096);
    expect(headerByteSize(prefix(100_000_000n), 2 ** 40)).toBe(100_000_008);
  });

  test("refuses a length over the format's limit, also in a file that is large enough", () => {
    expectRefused(() => headerByteSize(prefix(100_000_001n), 2 ** 40), "want 2 to 100000000");
  });

  test("refuses less than 8 bytes, of the prefix or of the file", () => {
    expectRefused(() => headerByteSize(new Uint8Array(5), 100), "there are 5 bytes");
    expectRefused(() => headerByteSize(prefix(2n), 6), "there are 6 bytes");
    expectRefused(() => headerByteSize(prefix(2n), 8), "its length is 2, want 2 to 0");
  });

  test("asserts that the size of a file is a size", () => {
    for (const size of [-1, 1.5, Number.NaN, 2 ** 53]) {
      expect(() => headerByteSize(prefix(2n), size)).toThrow(AssertionError);
    }
  });

  test("reads a prefix that is a window of something else", () => {
    const bytes = new Uint8Array(64).fill(255);
    bytes.set(prefix(16n), 3);
    expect(headerByteSize(bytes.subarray(3), 100)).toBe(24);
  });
});

describe("parseHeader", () => {
  const encode = (json: string) => {
    const text = new TextEncoder().encode(json);
    return new Uint8Array([...new Uint8Array(new BigUint64Array([BigInt(text.length)]).buffer), ...text]);
  };

  test("reads any legal order and spacing, and says which tensors are not aligned", () => {
    const bytes = encode(
      '{ "b" : {"data_offsets":[1, 5],"shape":[1],"dtype":"F32"},\n\t"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},' +
        '"e":{"dtype":"F64","shape":[2,0],"data_offsets":[1,1]},"__metadata__":{"format":"pt","__proto__":"x"}}\r\n',
    );
    const { tensors, metadata, dataOffset } = parseHeader(bytes, bytes.length + 5);
    expect(dataOffset).toBe(bytes.length);
    expect(tensors.map(({ name, byteOffset, byteSize }) => [name, byteOffset - dataOffset, byteSize])).toEqual([
      ["a", 0, 1],
      ["e", 1, 0],
      ["b", 1, 4],
    ]);
    expect(tensors.map(({ aligned, dtype }) => [dtype, aligned])).toEqual([
      ["U8", true],
      ["F64", (dataOffset + 1) % 8 === 0],
      ["F32", (dataOffset + 1) % 4 === 0],
    ]);
    expect(Object.entries(metadata)).toEqual([
      ["format", "pt"],
      ["__proto__", "x"],
    ]);
  });

  test("refuses a prefix that lacks a part of the header", () => {
    const { header, byteSize } = layOutRegion([spec("w", "U8", [1])], {});
    expectRefused(() => parseHeader(header.subarray(0, 100), byteSize), "100 bytes of it are there, want 4096");
  });

  test("refuses a file of any size but its own", () => {
    const { header, byteSize } = layOutRegion([spec("w", "U8", [100])], {});
    for (const size of [0, 7, 4096, byteSize - 1, byteSize + 1, 2 ** 53 - 1]) {
      expectRefused(() => parseHeader(header, size), "Cannot read safetensors header");
    }
  });

  test("refuses one tensor more than the limit, and one entry of metadata more", () => {
    const tensor = (i: number) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`;
    const tensors = encode(`{${Array.from({ length: 100_001 }, (_, i) => tensor(i)).join(",")}}`);
    expectRefused(() => parseHeader(tensors, tensors.length), "one tensor more than allowed");
    const entries = Array.from({ length: 10_001 }, (_, i) => `"${i}":""`).join(",");
    const metadata = encode(`{"__metadata__":{${entries}},${tensor(0)}}`);
    expectRefused(() => parseHeader(metadata, metadata.length), "one entry more than allowed");
  });

  test("never answers with a hole, an overlap or another failure, whatever is changed in a header", () => {
    const snippets = [
      "0",
      "9",
      "-",
      ",",
      "[",
      "]",
      "{",
      "}",
      '"',
      "\\",
      "e",
      ".",
      " ",
      "é",
      "\0",
      '"a":',
      "[0,0]",
      '"U8"',
    ];
    const change = fc.record({
      at: fc.nat({ max: 400 }),
      cut: fc.nat({ max: 4 }),
      put: fc.oneof(fc.constantFrom(...snippets), fc.constantFrom(...dtypes)),
    });
    let accepted = 0;
    fc.assert(
      fc.property(
        fc.array(anySpec, { minLength: 1, maxLength: 4 }),
        fc.array(change, { maxLength: 3 }),
        (specs, edits) => {
          const unique = [...new Map(specs.map((one) => [one.name, one])).values()];
          const layout = layOutRegion(unique, { m: "n" });
          let json = new TextDecoder().decode(layout.header.subarray(8)).trimEnd();
          for (const { at, cut, put } of edits) {
            const place = at % json.length;
            json = json.slice(0, place) + put + json.slice(place + cut);
          }
          const bytes = encode(json);
          const fileSize = bytes.length + layout.byteSize - layout.dataOffset;
          try {
            const parsed = parseHeader(bytes, fileSize);
            accepted += 1;
            expectCovered(parsed.tensors, bytes.length, fileSize);
            // JSON.parse agrees about every tensor: names, types and places.
            const { __metadata__, ...members } = JSON.parse(new TextDecoder().decode(bytes.subarray(8)));
            expect(parsed.tensors).toHaveLength(Object.keys(members).length);
            for (const { name, dtype, shape, byteOffset, byteSize } of parsed.tensors) {
              const begin = byteOffset - bytes.length;
              const member = Object.getOwnPropertyDescriptor(members, name)?.value;
              expect(member).toEqual({ dtype, shape: [...shape], data_offsets: [begin, begin + byteSize] });
            }
          } catch (error) {
            if (!(error instanceof TensordError)) throw error;
            expect(error.code).toBe("validation-failed");
          }
        },
      ),
      { numRuns: 3000 },
    );
    expect(accepted).toBeGreaterThan(100);
  });

  test("never answers with another failure for bytes of chance", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat({ max: 100 }), (bytes, length) => {
        const file = new Uint8Array([length, 0, 0, 0, 0, 0, 0, 0, 0x7b, ...bytes]);
        expectRefused(() => parseHeader(file, file.length), "Cannot ");
      }),
    );
  });
});

describe("tensorDifference", () => {
  test("is undefined for the same set in another order", () => {
    fc.assert(fc.property(anySpecs, (specs) => expect(tensorDifference(specs.toReversed(), specs)).toBeUndefined()));
  });

  test("names what is missing, what is unexpected and what differs", () => {
    const asked = [spec("a", "F32", [2]), spec("b", "F32", [2]), spec("c", "F32", [2]), spec("constructor", "U8", [])];
    const existing = [spec("d", "U8", []), spec("c", "F32", [1, 2]), spec("b", "I32", [2]), spec("a", "F32", [2])];
    expect(tensorDifference(asked, existing)).toEqual({
      missing: ["constructor"],
      unexpected: ["d"],
      different: [
        { name: "b", asked: { dtype: "F32", shape: [2] }, existing: { dtype: "I32", shape: [2] } },
        { name: "c", asked: { dtype: "F32", shape: [2] }, existing: { dtype: "F32", shape: [1, 2] } },
      ],
    });
  });

  test("does not take one missing and one unexpected for an agreement", () => {
    const difference = tensorDifference([spec("a", "U8", [])], [spec("b", "U8", [])]);
    expect(difference).toEqual({ missing: ["a"], unexpected: ["b"], different: [] });
  });

  test("tells a shape from its own beginning", () => {
    expect(tensorDifference([spec("a", "U8", [2])], [spec("a", "U8", [2, 1])])?.different).toHaveLength(1);
    expect(tensorDifference([spec("a", "U8", [2, 1])], [spec("a", "U8", [2])])?.different).toHaveLength(1);
    expect(tensorDifference([spec("a", "U8", [])], [spec("a", "U8", [])])).toBeUndefined();
  });

  test("counts a name that is asked for twice as missing once", () => {
    const one = spec("a", "U8", [1]);
    expect(tensorDifference([one, one], [one])).toEqual({ missing: ["a"], unexpected: [], different: [] });
  });

  test("lists at most 20 of each", () => {
    const many = (prefix: string, dtype: Dtype) =>
      Array.from({ length: 100 }, (_, i) => spec(`${prefix}${i}`, dtype, []));
    const difference = tensorDifference(
      [...many("a", "U8"), ...many("s", "U8")],
      [...many("b", "U8"), ...many("s", "I8")],
    );
    expect(Object.values(difference ?? {}).map((list) => list.length)).toEqual([20, 20, 20]);
  });
});

function failureOf(act: () => unknown): TensordError {
  try {
    act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

function expectRefused(act: () => unknown, words: string): void {
  const failure = failureOf(act);
  expect(failure.code).toBe("validation-failed");
  expect(failure.message).toContain(words);
  expect(failure.message).toMatch(/^Cannot .+: .+, want .+$/);
  expect(failure.facts.hint).toBeString();
}
