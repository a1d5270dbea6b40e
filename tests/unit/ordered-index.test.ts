import { describe, expect, test } from "bun:test";
import { AssertionError } from "node:assert/strict";
import fc from "fast-check";
import { OrderedIndex } from "../../src/memory/state/ordered-index.ts";

interface Item {
  readonly key: number;
}

function fill(keys: readonly number[]): { index: OrderedIndex<Item>; items: Item[] } {
  const index = new OrderedIndex<Item>();
  const items = keys.map((key) => ({ key }));
  for (const item of items) index.append(item);
  return { index, items };
}

const keysAfter = (index: OrderedIndex<Item>, key: number) => [...index.after(key)].map((item) => item.key);

describe("OrderedIndex", () => {
  test("is empty at first", () => {
    const { index } = fill([]);
    expect(index.size).toBe(0);
    expect(keysAfter(index, 0)).toEqual([]);
    index.remove({ key: 1 });
    expect(index.size).toBe(0);
  });

  test("continues after a key that is there, was there, or never was", () => {
    const { index, items } = fill([2, 4, 6, 8]);
    expect(keysAfter(index, 0)).toEqual([2, 4, 6, 8]);
    expect(keysAfter(index, 4)).toEqual([6, 8]);
    index.remove(items[1] as Item);
    expect(keysAfter(index, 4)).toEqual([6, 8]);
    expect(keysAfter(index, 3)).toEqual([6, 8]);
    expect(keysAfter(index, 5)).toEqual([6, 8]);
    expect(keysAfter(index, 8)).toEqual([]);
    expect(keysAfter(index, Number.MAX_SAFE_INTEGER - 1)).toEqual([]);
  });

  test("does not mind an item that is removed twice, nor one that only has the key of another", () => {
    const { index, items } = fill([1, 2, 3]);
    index.remove({ key: 2 });
    expect(index.size).toBe(3);
    index.remove(items[1] as Item);
    index.remove(items[1] as Item);
    expect(index.size).toBe(2);
    expect(keysAfter(index, 0)).toEqual([1, 3]);
  });

  test("asserts that keys ascend, also past an item that was removed", () => {
    const { index, items } = fill([1, 5]);
    expect(() => index.append({ key: 5 })).toThrow(AssertionError);
    expect(() => index.append({ key: 4 })).toThrow("keys must ascend");
    index.remove(items[1] as Item);
    expect(() => index.append({ key: 4 })).toThrow("keys must ascend");
    index.append({ key: 6 });
    expect(keysAfter(index, 0)).toEqual([1, 6]);
  });

  test("gives back the room of what was removed", () => {
    const { index, items } = fill(Array.from({ length: 10_000 }, (_, key) => key));
    for (const item of items.slice(0, 9_990)) index.remove(item);
    expect(index.size).toBe(10);
    expect(keysAfter(index, -1)).toEqual([9990, 9991, 9992, 9993, 9994, 9995, 9996, 9997, 9998, 9999]);
    index.append({ key: 10_000 });
    expect(keysAfter(index, 9998)).toEqual([9999, 10_000]);
  });

  test("agrees with a sorted list after any sequence of appends and removals", () => {
    const step = fc.record({ remove: fc.boolean(), gap: fc.integer({ min: 1, max: 3 }), pick: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), fc.nat(900), (steps, from) => {
        const index = new OrderedIndex<Item>();
        let expected: Item[] = [];
        let last = 0;
        for (const { remove, gap, pick } of steps) {
          if (remove && expected.length > 0) {
            const victim = expected[pick % expected.length] as Item;
            index.remove(victim);
            expected = expected.filter((item) => item !== victim);
            continue;
          }
          last += gap;
          const item = { key: last };
          index.append(item);
          expected.push(item);
        }
        expect(index.size).toBe(expected.length);
        expect([...index.after(from)]).toEqual(expected.filter(({ key }) => key > from));
      }),
    );
  });
});
