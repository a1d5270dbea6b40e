/** What a terminal shows of lines of the log. */

import { expect, test } from "bun:test";
import { toLogText } from "../../src/server/log-text.ts";

/** Without the time, which is that of the place. */
function shown(line: object): string[] {
  const lines = toLogText(
    JSON.stringify({ level: 30, time: "2026-11-28T12:00:00.000Z", instance: "a", ...line }),
  ).split("\n");
  expect(lines.pop()).toBe("");
  return lines.map((each) => each.replace(/^\d\d:\d\d:\d\d {2}/, ""));
}

test("an event is its type and its facts, without those that are null or said already", () => {
  const facts = { region: "reg_a", name: "w", reason: null, byte_size: 8192, msg: "tensord.region.sealed" };
  expect(shown({ event: "tensord.region.sealed", ...facts })).toEqual([
    "info   tensord.region.sealed  region=reg_a  name=w  byte_size=8 KiB",
  ]);
});

test("a failure of the world has its words and what to do, a mistake of ours its place", () => {
  const world = { type: "TensordError", message: "Cannot free it", code: "io-error", facts: { hint: "Try again." } };
  expect(shown({ level: 40, err: world, msg: "later" })).toEqual([
    "WARN   later",
    "  Cannot free it",
    "  hint: Try again.",
  ]);
  const ours = { type: "TypeError", message: "x", stack: "TypeError: x\n    at f (y.ts:1)" };
  expect(shown({ level: 50, err: ours, msg: "oh" })).toEqual(["ERROR  oh", "  TypeError: x", "      at f (y.ts:1)"]);
});

test("nothing that others chose reaches the terminal as a command, or as a line of its own", () => {
  const session = "ses_a (a\x1b[2J\n12:00:00  info   all is well\x9b)";
  const [line, ...more] = shown({ session, err: { type: "E", message: "m\x1b]0;x\x07", code: "c" }, msg: "m\r" });
  expect(line).toContain("session=ses_a (a\\u001b[2J\\u000a12:00:00  info   all is well\\u009b)");
  expect([line, ...more].join("")).not.toMatch(/\p{Cc}/u);
  expect(toLogText("no JSON\x1b[2J\n")).toBe("no JSON\\u001b[2J\n");
});
