import { describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import { parseWaitMs } from "../../src/routes/headers.ts";

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
