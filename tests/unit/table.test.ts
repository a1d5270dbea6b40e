import { expect, test } from "bun:test";
import { toTable } from "../../src/server/cli/table.ts";

test("a table shows what a terminal would obey as escapes, in every cell, and keeps each row on its line", () => {
  const hostile = "team=\x1b[2J\x9b31m\nred\r\t\u202e";
  const text = toTable(
    ["labels", "name"],
    [
      [hostile, "weights"],
      ["plain", hostile],
    ],
  );
  expect(text).not.toMatch(/[^\P{Cc}\n]|\p{Bidi_Control}/u);
  const escaped = "team=\\u001b[2J\\u009b31m\\u000ared\\u000d\\u0009\\u202e";
  expect(text.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
    ["labels", "name"],
    [escaped, "weights"],
    ["plain", escaped],
  ]);
});
