/** A region's tensors behind one interface: written once, counted, handed out as bytes, opened by name. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { layOutRegion, type Tensor } from "../../src/memory/layout/layout.ts";
import { findPlaces, toTensorIndex } from "../../src/memory/layout/tensor-index.ts";
import { Tensors, toBeginning } from "../../src/memory/layout/tensors.ts";

// Quotes, brackets and the very text that separates two tensors.
const name = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.constantFrom('"', '},{"name":"', ',{"name":"a"', '{"name":"a",', "\\", ']}"', "a"),
);
const tensor = fc.record(
  {
    name,
    dtype: fc.constantFrom("F32" as const, "U8" as const),
    shape: fc.array(fc.nat(9), { maxLength: 3 }),
    byteOffset: fc.nat(),
    byteSize: fc.nat(),
    aligned: fc.boolean(),
    aliasOf: name,
    logical: fc.record({ type: name, shape: fc.array(fc.nat(), { maxLength: 3 }) }),
  },
  { requiredKeys: ["name", "dtype", "shape", "byteOffset", "byteSize", "aligned"] },
);
const lists = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 20 });

const toText = ({ bytes }: Tensors) => Buffer.from(bytes).toString("utf8");

describe("tensors", () => {
  test("are each found by name as they were laid out, whatever names stand around them", () => {
    fc.assert(
      fc.property(lists, name, (list: Tensor[], name) => {
        const tensors = Tensors.of(list);
        for (const each of list) expect(tensors.find(each.name)).toEqual(each);
        expect(tensors.find(name)).toEqual(list.find((each) => each.name === name));
      }),
    );
  });

  test("are JSON in the words of descriptors, in the order of the list", () => {
    fc.assert(
      fc.property(lists, (list: Tensor[]) => {
        const tensors = Tensors.of(list);
        expect(tensors.count).toBe(list.length);
        const expected = list.map(({ byteOffset, byteSize, aliasOf = null, logical = null, ...rest }) => {
          return { ...rest, byte_offset: byteOffset, byte_size: byteSize, alias_of: aliasOf, logical };
        });
        expect(JSON.parse(toText(tensors))).toEqual(expected);
      }),
    );
  });

  test("come back from their bytes, and from no others", () => {
    const { count, bytes } = Tensors.of([
      { name: "w", dtype: "F32", shape: [2], byteOffset: 4096, byteSize: 8, aligned: true },
    ]);
    expect(Tensors.parse(count, bytes)).toEqual(Tensors.of([{ ...Tensors.parse(count, bytes).find("w") } as Tensor]));
    for (const wrong of [() => Tensors.parse(2, bytes), () => Tensors.parse(1, bytes.subarray(0, -1))]) {
      expect(wrong).toThrow();
    }
    expect(() => Tensors.parse(1, Buffer.from("{}"))).toThrow();
  });

  test("are asked for once more with what they stand for, and laid out with it", () => {
    const logical = { type: "Q4_K", shape: [2, 256] };
    const specs = [
      { name: "q", dtype: "U8", shape: [2, 144], logical },
      { name: "w", dtype: "F32", shape: [2] },
    ] as const;
    for (const metadata of [{}, false] as const) {
      const tensors = Tensors.of(layOutRegion(specs, metadata).tensors);
      expect(tensors.find("q")).toMatchObject({ byteSize: 288, logical });
      expect(tensors.toSpecs()).toEqual(specs);
    }
  });

  test("say what keeps them apart from what is asked for", () => {
    const tensors = Tensors.of([
      { name: "w", dtype: "F32", shape: [2], byteOffset: 4096, byteSize: 8, aligned: true },
      { name: "b", dtype: "U8", shape: [1], byteOffset: 4104, byteSize: 1, aligned: true },
    ]);
    const b = { name: "b", dtype: "U8", shape: [1] } as const;
    expect(tensors.differenceFrom([b, { name: "w", dtype: "F32", shape: [2] }])).toBeUndefined();
    expect(tensors.differenceFrom([{ ...b, name: "c" }])).toMatchObject({ missing: ["c"], unexpected: ["w", "b"] });
  });

  test("are each found in a long list by its index, where they begin, whatever names stand around them", () => {
    fc.assert(
      fc.property(lists, tensor, (list: Tensor[], { name }) => {
        const tensors = Tensors.of(list);
        const index = Buffer.from(toTensorIndex(tensors));
        const find = (wanted: string) =>
          [...findPlaces(wanted, list.length, (entry) => index.readBigUInt64LE(8 * entry))].filter((place) =>
            Buffer.from(tensors.bytes).subarray(place).toString("utf8").startsWith(toBeginning(wanted)),
          );
        for (const each of list) {
          expect(find(each.name)).toEqual([Buffer.from(tensors.bytes).indexOf(toBeginning(each.name))]);
        }
        expect(find(name)).toHaveLength(Number(list.some((each) => each.name === name)));
      }),
    );
  });

  test("are found in a long list though another name has the same hash", () => {
    // Two names of one hash are found by their birthday.
    const byHash = new Map<number, string>();
    let pair: [string, string] | undefined;
    for (let index = 0; pair === undefined; index++) {
      const name = `t${index}`;
      const hash = Bun.hash.xxHash32(JSON.stringify(name));
      const other = byHash.get(hash);
      if (other !== undefined) pair = [other, name];
      byHash.set(hash, name);
    }
    const list = pair.map((name, at) => {
      return { name, dtype: "U8", shape: [1], byteOffset: 4096 + at, byteSize: 1, aligned: true } as const;
    });
    const index = Buffer.from(toTensorIndex(Tensors.of(list)));
    for (const name of pair) {
      expect([...findPlaces(name, 2, (entry) => index.readBigUInt64LE(8 * entry))]).toHaveLength(2);
    }
  });
});
