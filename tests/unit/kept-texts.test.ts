/** What keeps events in little memory: texts as bytes, held against a plain list, and words by their number. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { KeptTexts } from "../../src/memory/events/kept-texts.ts";
import { KeptWords } from "../../src/memory/events/kept-words.ts";

const slots = 50;

const text = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 40 }),
  fc
    .record({
      length: fc.constantFrom(0, 1, 21_845, 21_846, 40_000, 65_535, 65_536, 65_537, 200_000),
      unit: fc.constantFrom("x", "é", "語"),
    })
    .map(({ length, unit }) => unit.repeat(length)),
);

describe("kept texts", () => {
  test("come back as they were put, however long they are and whatever went before", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ text, clears: fc.integer({ min: 0, max: 3 }) }), { maxLength: 120 }),
        (steps) => {
          const texts = new KeptTexts(slots);
          const kept: string[] = [];
          let first = 0;
          for (const { text, clears } of steps) {
            const atLeast = kept.length === slots ? 1 : 0;
            for (let count = Math.min(kept.length, Math.max(atLeast, clears)); count > 0; count--) {
              texts.clear(first % slots);
              kept.shift();
              first += 1;
            }
            texts.put((first + kept.length) % slots, text);
            kept.push(text);
            // Those at both ends lie where the next one could overwrite them.
            expect(texts.at(first % slots)).toBe(kept[0] as string);
            expect(texts.at((first + kept.length - 1) % slots)).toBe(text);
          }
          for (const [index, text] of kept.entries()) expect(texts.at((first + index) % slots)).toBe(text);
        },
      ),
      { numRuns: 30 },
    );
  });

  test("have no text in a slot that was cleared", () => {
    const texts = new KeptTexts(2);
    texts.put(0, "a");
    texts.clear(0);
    texts.clear(0);
    expect(() => texts.at(0)).toThrow(RangeError);
    texts.put(0, "b");
    expect(texts.at(0)).toBe("b");
  });
});

describe("kept words", () => {
  test("are one for each, as long as they were taken more often than released", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("take a", "take b", "take ", "release a", "release b", "release ")),
        (steps) => {
          const words = new KeptWords();
          const taken = new Map<string, number[]>();
          for (const step of steps) {
            const [what, word = ""] = step.split(" ");
            const numbers = taken.get(word) ?? [];
            taken.set(word, numbers);
            if (what === "take") numbers.push(words.take(word));
            else words.release(numbers.pop() ?? 0);
            for (const [word, numbers] of taken) {
              expect(new Set(numbers).size).toBeLessThanOrEqual(1);
              for (const number of numbers) expect(words.at(number)).toBe(word);
            }
            expect(words.size).toBe([...taken.values()].filter(({ length }) => length > 0).length);
          }
        },
      ),
    );
  });

  test("have 0 for none", () => {
    const words = new KeptWords();
    expect([words.take(null), words.take(undefined), words.at(0), words.size]).toEqual([0, 0, null, 0]);
    words.release(0);
    expect(words.take("a")).toBe(1);
  });
});
