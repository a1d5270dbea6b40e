/** What is told of the benchmark `peers`: plots and tables are those of the result that is kept, and nobody wins on a busy machine. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { toPlot, toTables, toVerdict } from "../../bench/peers/figures.ts";
import { type Measured, type Part, toWork } from "../../bench/peers/measured.ts";
import { root } from "../harness/instance-needs.ts";

const docs = join(root, "docs");
const measured = JSON.parse(readFileSync(join(docs, "performance/peers.json"), "utf8")) as Measured;

describe("figures", () => {
  test("the page and its plots are those of the result that is kept", () => {
    expect(readFileSync(join(docs, "performance.md"), "utf8")).toContain(`\n\n${toTables(measured)}\n\n`);
    for (const part of measured.details.parts) {
      expect(readFileSync(join(docs, `performance/${part.name}.svg`), "utf8")).toBe(toPlot(part));
    }
  });

  test("a ratio is one of the same round, and its spread that of the rounds", () => {
    const { figures, rounds } = toWork("x", "ms", "base", { base: [1, 10, 100, 1000], tensord: [2, 30, 400, 1000] });
    expect(rounds).toBe(4);
    expect(figures).toEqual([
      { system: "base", time: 10, ratio: 1, low: 1, high: 1 },
      { system: "tensord", time: 30, ratio: 2, low: 1, high: 3 },
    ]);
  });

  test("a system without samples has no figure", () => {
    expect(toWork("x", "ms", "base", { base: [1], gone: [] }).figures.map(({ system }) => system)).toEqual(["base"]);
  });

  test("what a system is called is no markup", () => {
    const work = toWork("a < b", "ms", "base", { base: [1], "a<b>&c": [2] });
    expect(toPlot(partOf(work))).toContain(">a&lt;b&gt;&amp;c<");
  });
});

describe("the verdict", () => {
  const work = toWork("w", "ms", "base", {
    base: [10, 10],
    tensord: [20, 20],
    fast: [5, 5],
    slow: [30, 30],
    even: [19, 21],
  });

  test("on a busy machine there is none", () => {
    expect(toVerdict([partOf(work)], false)).toContain("No verdict");
    expect(toVerdict([partOf(work)], false)).not.toContain("fast");
  });

  test("whoever is faster beyond both spreads is named, and the reference is not", () => {
    expect(toVerdict([partOf(work)], true)).toEndWith("- w: 2; faster: fast (0.5).");
  });

  test("where nobody is, nothing is lost", () => {
    expect(toVerdict([partOf(toWork("w", "ms", "base", { base: [1], tensord: [2] }))], true)).toContain(
      "Lost: nothing",
    );
  });
});

function partOf(work: Part["works"][number]): Part {
  return { name: "attach", works: [work], absent: {}, othersBefore: 0, othersAfter: 0 };
}
