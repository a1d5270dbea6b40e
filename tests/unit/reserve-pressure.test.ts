/** Whether others need memory, by files as `/proc` has them, in `fixtures/reserve-pressure`. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isPressed, parseStall, readPressure } from "../../src/memory/storage/shm/reserve/pressure.ts";

const read = (name: string) => readFileSync(join(import.meta.dir, "fixtures/reserve-pressure", name), "utf8");
const calm = read("pressure-calm");
const stalled = read("pressure-stalled");
const easing = read("pressure-easing");
const plenty = read("meminfo-plenty");
const scarce = read("meminfo-scarce");
const little = read("meminfo-little");

test("tasks that wait for memory, or little that can be had, are pressure", () => {
  expect(isPressed({ meminfo: plenty, pressure: calm }, false)).toBeFalse();
  expect(isPressed({ meminfo: plenty, pressure: stalled }, false)).toBeTrue();
  expect(isPressed({ meminfo: scarce, pressure: calm }, false)).toBeTrue();
});

test("it ends at other marks than it begins at", () => {
  for (const texts of [
    { meminfo: little, pressure: calm },
    { meminfo: plenty, pressure: easing },
  ]) {
    expect(isPressed(texts, false)).toBeFalse();
    expect(isPressed(texts, true)).toBeTrue();
  }
  expect(isPressed({ meminfo: plenty, pressure: calm }, true)).toBeFalse();
});

test("where the kernel tells nothing there is none", () => {
  expect(isPressed({ meminfo: undefined, pressure: undefined }, true)).toBeFalse();
  expect(parseStall("")).toBe(0);
});

test("this machine's own words are read", () => {
  expect(typeof isPressed(readPressure(), false)).toBe("boolean");
});
