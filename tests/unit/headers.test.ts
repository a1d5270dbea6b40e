import { describe, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { limits } from "../../src/memory/limits.ts";
import { parseIfMatch, parseWaitMs } from "../../src/routes/headers.ts";

describe("parseWaitMs", () => {
  const longestMs = limits.waitSeconds * 1000;
  for (const [prefer, waitMs] of [
    [undefined, 0],
    ["", 0],
    ["wait=0", 0],
    ["wait=1", 1000],
    ["wait=30", 30_000],
    ["WAIT=2", 2000],
    ['wait="5"', 5000],
    [" wait = 5 ", 5000],
    ["respond-async, wait=7", 7000],
    ["respond-async;wait=7", 7000],
    ["wait=7, respond-async", 7000],
    ["wait=7; foo=bar", 7000],
    ["wait=007", 7000],
    ["wait=300", longestMs],
    ["wait=301", longestMs],
    ["wait=999999999", longestMs],
  ] as const) {
    test(`reads ${waitMs} ms from ${JSON.stringify(prefer)}`, () => {
      expect(parseWaitMs(prefer)).toBe(waitMs);
    });
  }

  for (const prefer of [
    "wait",
    "wait=",
    "wait=-1",
    "wait=+1",
    "wait=1.5",
    "wait=1e3",
    "wait=0x10",
    "wait=Infinity",
    "wait=9999999999",
    "wait=1s",
    "wait=1 2",
    "await=5",
    "nowait=5",
    "wait:5",
    "wait==5",
    "wait=１",
  ]) {
    test(`ignores ${JSON.stringify(prefer)}, as RFC 7240 wants`, () => {
      expect(parseWaitMs(prefer)).toBe(0);
    });
  }
});

describe("parseIfMatch", () => {
  test("takes any revision without the header and with *", () => {
    for (const value of [undefined, "*", " * "]) expect(parseIfMatch(value)).toBeUndefined();
  });

  test("reads a revision from an ETag", () => {
    expect(parseIfMatch('"1"')).toBe(1);
    expect(parseIfMatch(' "42" ')).toBe(42);
    expect(parseIfMatch('"999999999999999"')).toBe(999_999_999_999_999);
  });

  for (const value of [
    "",
    "1",
    '""',
    '"',
    '"a"',
    "'1'",
    'W/"1"',
    '"1", "2"',
    '"-1"',
    '"1.0"',
    '"0x1"',
    '"1e3"',
    '"9007199254740993"',
    '"１"',
  ]) {
    test(`refuses ${JSON.stringify(value)}, because a change must not go by a guess`, () => {
      expect(() => parseIfMatch(value)).toThrow(TensordError);
      expect(() => parseIfMatch(value)).toThrow(/^Cannot read If-Match: .+ is no revision/);
    });
  }

  test("shows a long one in part", () => {
    let message = "";
    try {
      parseIfMatch(`"${"1".repeat(5000)}"`);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message.length).toBeWithin(80, 200);
  });
});
