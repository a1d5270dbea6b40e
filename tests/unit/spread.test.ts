/** The order in which the parts of a file are compared. */

import { expect, test } from "bun:test";
import { spread } from "../../src/loaders/spread.ts";

test("parts come from both ends and the middle first, and each once", () => {
  const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);
  expect([...spread(numbers(10))]).toEqual([9, 8, 0, 4, 2, 6, 1, 3, 5, 7]);
  for (let count = 0; count < 40; count++) {
    const order = [...spread(numbers(count))];
    expect(order.toSorted((a, b) => a - b)).toEqual(numbers(count));
  }
});
