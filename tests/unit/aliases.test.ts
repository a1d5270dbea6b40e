/** Aliases: where one may lie, what it costs, and that a file's own metadata gives them back, or refuses them whole. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { aliasesKey, elementBytes } from "../../src/memory/layout/aliases.ts";
import { type Dtype, dtypeBits, dtypes } from "../../src/memory/layout/dtype.ts";
import { layOutRegion, parseHeader, type Tensor, type TensorSpec } from "../../src/memory/layout/layout.ts";
import { readAliases } from "../../src/memory/layout/read-aliases.ts";
import { limits } from "../../src/memory/limits.ts";

const spec = (name: string, dtype: Dtype, shape: readonly number[]): TensorSpec => ({ name, dtype, shape });
const alias = (name: string, dtype: Dtype, shape: readonly number[], aliasOf: string, aliasByteOffset?: number) => ({
  ...spec(name, dtype, shape),
  aliasOf,
  ...(aliasByteOffset === undefined ? {} : { aliasByteOffset }),
});

function readBack({ header, byteSize }: ReturnType<typeof layOutRegion>): Tensor[] {
  const { tensors, metadata } = parseHeader(header, byteSize);
  return [...tensors, ...readAliases(tensors, metadata)];
}

const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);

/** Tensors of one dimension, and aliases of them of every dtype, wherever there is room for one. */
const anyTied = fc
  .record({
    owners: fc.uniqueArray(
      fc.record({
        name: fc.string({ unit: "binary", minLength: 1, maxLength: 20 }),
        dtype: fc.constantFrom(...dtypes),
      }),
      { selector: ({ name }) => name, minLength: 2, maxLength: 12 },
    ),
    picks: fc.array(
      fc.record({ length: fc.nat(64), begin: fc.nat(64), dtype: fc.constantFrom(...dtypes), isAlias: fc.boolean() }),
      { minLength: 12, maxLength: 12 },
    ),
  })
  .filter(({ owners }) => owners.every(({ name }) => !name.includes("\0") && name !== "__metadata__"))
  .map(({ owners, picks }): TensorSpec[] => {
    const made: { name: string; byteSize: number }[] = [];
    return owners.map(({ name, dtype }, at) => {
      const { length, begin, dtype: aliasDtype, isAlias } = picks[at] as (typeof picks)[number];
      const target = made[begin % Math.max(1, made.length)];
      const multiple = elementBytes(aliasDtype);
      if (isAlias && target !== undefined && target.byteSize % multiple === 0) {
        const offset = Math.floor(begin / multiple) * multiple;
        // Of bits that make whole bytes: 3 bytes are 4 elements of 6 bits.
        const unit = dtypeBits[aliasDtype] < 8 ? 4 : 1;
        const unitBytes = (unit * dtypeBits[aliasDtype]) / 8;
        const room = Math.floor((target.byteSize - offset) / unitBytes);
        if (room >= 0) return alias(name, aliasDtype, [unit, Math.min(room, length)], target.name, offset);
      }
      const shape = [length, 4];
      made.push({ name, byteSize: (length * 4 * dtypeBits[dtype]) / 8 });
      return spec(name, dtype, shape);
    });
  });

describe("an alias", () => {
  test("lies in its tensor, takes no bytes of its own, and is aligned as all are", () => {
    fc.assert(
      fc.property(anyTied, (specs) => {
        const layout = layOutRegion(specs, { format: "pt" });
        const owners = specs.filter(({ aliasOf }) => aliasOf === undefined);
        const data = layout.byteSize - layout.dataOffset;
        expect(data).toBe(layOutRegion(owners, {}).byteSize - layOutRegion(owners, {}).dataOffset);
        const places = new Map(layout.tensors.map((tensor) => [tensor.name, tensor]));
        expect(layout.tensors.map(({ name, aliasOf }) => [name, aliasOf])).toEqual(
          specs.map(({ name, aliasOf }) => [name, aliasOf]),
        );
        for (const { name, aliasOf, aliasByteOffset = 0 } of specs) {
          const { byteOffset, byteSize, aligned } = places.get(name) as Tensor;
          expect(aligned).toBeTrue();
          if (aliasOf === undefined) continue;
          const target = places.get(aliasOf) as Tensor;
          expect(byteOffset).toBe(target.byteOffset + aliasByteOffset);
          expect(byteOffset + byteSize).toBeLessThanOrEqual(target.byteOffset + target.byteSize);
        }
      }),
    );
  });

  test("comes back from the header's own metadata, whatever it and its tensor are called", () => {
    fc.assert(
      fc.property(anyTied, (specs) => {
        const layout = layOutRegion(specs, {});
        expect(readBack(layout).toSorted(byName)).toEqual(layout.tensors.toSorted(byName));
      }),
    );
    const tricky = ["__proto__", "10", "9", 'a"b\\c', "\u2028", "😀"];
    const layout = layOutRegion([spec("w", "F32", [2]), ...tricky.map((name) => alias(name, "F32", [2], "w"))], {});
    expect(readBack(layout).map(({ name }) => name)).toEqual(["w", ...tricky]);
  });

  test("is one text of the metadata, and no entry of the header, where other readers refuse what overlaps", () => {
    const { header } = layOutRegion(
      [alias("head", "F32", [2, 4], "w"), spec("w", "F32", [4, 2]), alias("row", "F32", [], "w", 12)],
      {},
    );
    const json = JSON.parse(new TextDecoder().decode(header.subarray(8)));
    expect(Object.keys(json)).toEqual(["__metadata__", "w"]);
    expect(json.__metadata__).toEqual({
      "tensord.aliases":
        '{"head":{"dtype":"F32","shape":[2,4],"alias_of":"w","alias_byte_offset":0},' +
        '"row":{"dtype":"F32","shape":[],"alias_of":"w","alias_byte_offset":12}}',
    });
  });

  test("of larger elements has its tensor laid out as if that had them", () => {
    const bytes = [spec("odd", "U8", [3]), spec("bytes", "U8", [16]), spec("half", "F16", [3])];
    const { tensors } = layOutRegion([...bytes, alias("floats", "F64", [1], "bytes", 8)], {});
    expect(tensors.map(({ name, byteOffset }) => [name, byteOffset - 4096])).toEqual([
      ["odd", 22],
      ["bytes", 0],
      ["half", 16],
      ["floats", 8],
    ]);
  });

  const w = spec("w", "U8", [12]);
  for (const [what, specs, words] of [
    ["of nothing", [w, alias("a", "U8", [1], "x")], 'an alias of "x": there is no such tensor'],
    ["of itself", [w, alias("a", "U8", [1], "a")], 'that is an alias itself, want the tensor that has the bytes, "a"'],
    ["of an alias", [w, alias("a", "U8", [1], "w"), alias("b", "U8", [1], "a")], 'that has the bytes, "w"'],
    ["that ends outside", [w, alias("a", "U8", [12], "w", 1)], "it has bytes 1 to 13, want at most 12"],
    ["that begins outside", [w, alias("a", "U8", [0], "w", 13)], "it has bytes 13 to 13, want at most 12"],
    ["that overflows", [w, alias("a", "U8", [2 ** 53 - 1], "w", 2 ** 53 - 1)], "want at most 12"],
    ["before its tensor", [w, alias("a", "U8", [1], "w", -1)], "it begins at byte -1, want a whole number"],
    ["at half a byte", [w, alias("a", "U8", [1], "w", 0.5)], "it begins at byte 0.5, want a whole number"],
    ["between elements", [w, alias("a", "F32", [1], "w", 2)], "begins at byte 2 of 12, want multiples of 4"],
    ["in a tensor that leaves a gap", [w, alias("a", "F64", [1], "w")], "byte 0 of 12, want multiples of 8"],
    ["of the same name", [w, alias("w", "U8", [1], "w")], 'the tensor name "w" occurs twice'],
    [
      "without a tensor",
      [w, { ...spec("a", "U8", [1]), aliasByteOffset: 0 }],
      "it has alias_byte_offset and no alias_of",
    ],
  ] as const) {
    test(`${what} is refused`, () => {
      const failure = failureOf(() => layOutRegion(specs, {}));
      expect(failure.message).toContain(words);
      expect(failure.message).toMatch(/^Cannot .+: .+, want .+$/);
      expect(failure.facts.hint).toBeString();
    });
  }

  test("counts among the tensors of its region", () => {
    const specs = [w, ...Array.from({ length: limits.regionTensors }, (_, at) => alias(`a${at}`, "U8", [1], "w"))];
    expect(failureOf(() => layOutRegion(specs, {})).message).toContain(`it has ${limits.regionTensors + 1} tensors`);
    expect(layOutRegion(specs.slice(1).concat(w).slice(1), {}).tensors).toHaveLength(limits.regionTensors);
  });
});

describe("a text that anybody may have written", () => {
  const { tensors } = parseHeader(...toFile(layOutRegion([spec("w", "U8", [12]), spec("v", "F32", [1])], {})));
  const read = (text: string) => readAliases(tensors, { [aliasesKey]: text });
  const entry = (fields: object) =>
    JSON.stringify({ a: { dtype: "U8", shape: [1], alias_of: "w", alias_byte_offset: 0, ...fields } });

  test("that is not there means no aliases", () => {
    expect(readAliases(tensors, { format: "pt" })).toEqual([]);
    expect(read("{}")).toEqual([]);
  });

  for (const [what, text, words] of [
    ["no JSON", "", "Cannot read tensord.aliases: at character 0 the text is not what it should be, want {"],
    ["a list", "[]", "want {"],
    ["cut off", entry({}).slice(0, -1), "want }"],
    ["followed by more", `${entry({})}{}`, "there is more text"],
    ["with a field that it does not have", entry({ strides: [1] }), 'an alias has the field "strides"'],
    ["without a shape", entry({ shape: undefined }), 'alias "a" is incomplete'],
    ["with one name twice", '{"a":{},"a":{}}', 'alias "a" is incomplete'],
    ["with a size that is none", entry({ shape: [-1] }), "there is no plain number"],
    ["with an offset in words", entry({ alias_byte_offset: "0" }), "there is no plain number"],
    ["with a dtype that is none", entry({ dtype: "toString" }), '"a" has dtype "toString"'],
    ["with a name that a tensor has", entry({}).replace('"a"', '"v"'), '"v" is a tensor with bytes of its own'],
    ["with a name that none may have", entry({}).replace('"a"', '""'), "it is empty"],
    ["of a tensor that is not there", entry({ alias_of: "x" }), "there is no such tensor"],
    [
      "of an alias",
      `${entry({}).slice(0, -1)},${entry({ alias_of: "a" }).slice(1).replace('"a"', '"b"')}`,
      "no such tensor",
    ],
    ["past its tensor's end", entry({ shape: [2 ** 40] }), "want at most 12"],
    ["past every number", entry({ shape: [2 ** 53 - 1, 2 ** 53 - 1] }), "overflows"],
    ["nested without end", '{"a":'.repeat(100_000), "an alias has the field"],
  ] as const) {
    test(`${what} is refused`, () => {
      const failure = failureOf(() => read(text));
      expect(failure.code).toBe("validation-failed");
      expect(failure.message).toContain(words);
    });
  }

  test("with more tensors than a region may have is refused", () => {
    const many = Object.fromEntries(
      Array.from({ length: limits.regionTensors - 1 }, (_, at) => [`a${at}`, JSON.parse(entry({})).a]),
    );
    expect(failureOf(() => read(JSON.stringify(many))).message).toContain(`want at most ${limits.regionTensors}`);
  });

  test("never brings an alias that leaves its tensor, or another failure, whatever is changed in it", () => {
    const text = entry({ dtype: "F32", shape: [2], alias_byte_offset: 4 });
    const change = fc.record({ at: fc.nat(text.length), cut: fc.nat(3), put: fc.string({ maxLength: 3 }) });
    fc.assert(
      fc.property(change, ({ at, cut, put }) => {
        try {
          for (const { byteOffset, byteSize, aliasOf } of read(text.slice(0, at) + put + text.slice(at + cut))) {
            const target = tensors.find(({ name }) => name === aliasOf) as Tensor;
            expect(byteOffset).toBeGreaterThanOrEqual(target.byteOffset);
            expect(byteOffset + byteSize).toBeLessThanOrEqual(target.byteOffset + target.byteSize);
          }
        } catch (error) {
          if (!(error instanceof TensordError)) throw error;
        }
      }),
    );
  });
});

function toFile({ header, byteSize }: { header: Uint8Array; byteSize: number }): [Uint8Array, number] {
  return [header, byteSize];
}

function failureOf(act: () => unknown): TensordError {
  try {
    act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
