/** How regions ended, held against a plain map: the latest are remembered, each by all that it was called, and no more than the bound. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { limits } from "../../src/memory/limits.ts";
import { EndedRegions } from "../../src/memory/state/ended-regions.ts";
import { KeptEndings } from "../../src/memory/state/kept-endings.ts";

function toKeys(token: number, name: number | undefined): string[] {
  return name === undefined ? [`token${token}`] : [`token${token}`, `m/${name}`, `m/${name}/v`];
}

function setInModel(model: Map<string, string>, mostKeys: number, key: string, text: string): void {
  model.delete(key);
  model.set(key, text);
  for (const oldest of model.keys()) {
    if (model.size <= mostKeys) break;
    model.delete(oldest);
  }
}

describe("kept endings", () => {
  test("are those of a plain map that forgets its oldest keys, whichever come again", () => {
    const step = fc.record({
      name: fc.integer({ min: 0, max: 20 }),
      hasName: fc.boolean(),
      text: fc.string({ maxLength: 20 }),
    });
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 12 }), fc.array(step, { maxLength: 200 }), (mostKeys, steps) => {
        const endings = new KeptEndings(mostKeys);
        const model = new Map<string, string>();
        for (const [index, { name, hasName, text }] of steps.entries()) {
          for (const key of toKeys(index, hasName ? name : undefined)) {
            endings.set(key, text);
            setInModel(model, mostKeys, key, text);
          }
          expect(endings.size).toBe(model.size);
        }
        for (const [key, text] of model) expect(endings.get(key)).toBe(text);
        const asked = steps.flatMap((_, index) => [...toKeys(index, index), `m/${index}/`]);
        for (const key of asked) expect(endings.get(key)).toBe(model.get(key) as string);
      }),
    );
  });
});

describe("ended regions", () => {
  const region = (token: string, formerName: string | null, version = "") => ({
    token,
    model: "m",
    version,
    formerName,
  });

  test("are told of by token, by name and by version, with when it was", () => {
    const ended = new EndedRegions();
    ended.remember(region("a", "weights", "1"), "was deleted by request", 1000.5);
    ended.remember(region("b", "weights", "2"), "ended with session ses_x, a job\nof two lines", 61_000);
    ended.remember(region("c", null), "was replaced", 61_000);
    const now = 200_000;
    expect(ended.tellById("a", now)).toBe("was deleted by request 3 min ago");
    expect(ended.tellById("c", now)).toBe("was replaced 2 min ago");
    expect(ended.tellById("c", 62_000)).toBe("was replaced 1 s ago");
    expect(ended.tellByName("m", "weights", undefined, 62_000)).toBe(
      "ended with session ses_x, a job\nof two lines 1 s ago",
    );
    expect(ended.tellByName("m", "weights", "1", now)).toBe("was deleted by request 3 min ago");
    expect(ended.tellByName("m", "weights", "3", now)).toBeUndefined();
    expect(ended.tellByName("m", "weight", undefined, now)).toBeUndefined();
    expect(ended.tellById("", now)).toBeUndefined();
  });

  test("are remembered up to the bound, though one name comes again each time", () => {
    const ended = new EndedRegions();
    for (let index = 0; index < limits.endedRegions + 10; index++) {
      ended.remember(region(`t${index}`, "weights"), `ended ${index}`, 0);
    }
    // Two of the keys are the name's.
    const oldest = limits.endedRegions + 10 - (limits.endedRegions - 2);
    expect(ended.tellById(`t${oldest}`, 0)).toBe(`ended ${oldest} 0 s ago`);
    expect(ended.tellById(`t${oldest - 1}`, 0)).toBeUndefined();
    expect(ended.tellByName("m", "weights", "", 0)).toBe(`ended ${limits.endedRegions + 9} 0 s ago`);
  });
});
