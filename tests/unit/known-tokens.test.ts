/** Which tokens pass the filter that is shared with the thread that reads what others do with names. */

import { expect, test } from "bun:test";
import { createToken } from "../../src/memory/naming.ts";
import { KnownTokens } from "../../src/memory/storage/known-tokens.ts";

test("each token that was added passes, seen by either thread, until it is removed as often", () => {
  const mine = new KnownTokens();
  const theirs = new KnownTokens(mine.memory);
  const tokens = Array.from({ length: 20_000 }, createToken);
  for (const token of tokens) mine.add(token);
  expect(tokens.filter((token) => !theirs.mayHave(token))).toEqual([]);
  const [twice = ""] = tokens;
  mine.add(twice);
  for (const token of tokens) mine.remove(token);
  expect(theirs.mayHave(twice)).toBe(true);
  mine.remove(twice);
  expect(tokens.filter((token) => theirs.mayHave(token))).toEqual([]);
});

test("few others pass", () => {
  const known = new KnownTokens();
  for (let count = 0; count < 1000; count++) known.add(createToken());
  const passed = Array.from({ length: 10_000 }, createToken).filter((token) => known.mayHave(token));
  // A thousand of 131,072 places are taken: 76 of ten thousand, and a standard deviation of 9.
  expect(passed.length).toBeWithin(20, 140);
});
