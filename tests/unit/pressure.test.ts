/** The gauge of pressure: two marks that lie apart, so that a pool at the brink does not tell at every change. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { limits } from "../../src/memory/limits.ts";
import { Books } from "../../src/memory/state/books.ts";
import { PressureGauge } from "../../src/memory/state/pressure.ts";

/** What is told while the server's use of 100 bytes takes these values, of which `draining` are on their way out. */
function follow(uses: readonly number[], draining = 0): string[] {
  const books = new Books(100 + limits.journalBytes);
  const model = books.addModel({ name: "m", limits: [], revision: 1, createdAt: 0 });
  const gauge = new PressureGauge();
  return uses.flatMap((used) => {
    Object.assign(books.pools.get("host"), { usedBytes: used - draining, drainingBytes: draining });
    return gauge.look(books, model).map(({ level, usedBytes }) => `${level} ${usedBytes}`);
  });
}

test("it is high from 90 % on and normal below 80 %", () => {
  expect(follow([89, 90, 91, 80, 79, 80, 89, 90])).toEqual(["high 90", "normal 79", "high 90"]);
});

test("what drains counts", () => {
  expect(follow([89, 90], 50)).toEqual(["high 90"]);
});

test("the levels alternate, and each is told beyond its own mark", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(100)), (uses) => {
      const told = follow(uses).map((text) => text.split(" "));
      for (const [index, [level, used]] of told.entries()) {
        expect(level).toBe(index % 2 === 0 ? "high" : "normal");
        if (level === "high") expect(Number(used)).toBeGreaterThanOrEqual(90);
        else expect(Number(used)).toBeLessThan(80);
      }
    }),
  );
});

test("a model whose limit is nothing is under pressure as soon as it is looked at", () => {
  const books = new Books(limits.journalBytes + 100);
  const model = books.addModel({ name: "m", limits: [{ pool: "host", limitBytes: 0 }], revision: 1, createdAt: 0 });
  const gauge = new PressureGauge();
  expect(gauge.look(books, model)).toEqual([{ level: "high", pool: "host", model: "m", usedBytes: 0, limitBytes: 0 }]);
  expect(gauge.look(books, model)).toEqual([]);
});
