/** The generator check (`npm run check:generators`) without a generator: what it makes of what a driver printed, and its rows. */

import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { judge } from "../generators/examine.ts";
import { filesOf, type Row } from "../generators/row.ts";
import { rows } from "../generators/rows.ts";
import { largeBytes, readOutcomes, stepNames } from "../generators/steps.ts";
import { lineOf } from "../generators/table.ts";
import { root } from "../harness/instance-needs.ts";

const truth = { epoch: "1795878007459" };
const right = stepNames.map((step) => `ok ${step} `);
const told = {
  invalid: "labels",
  full: "pool-full 1125899906846720 22740459520",
  large: `${largeBytes} ${largeBytes + 4096}`,
  epoch: truth.epoch,
  tomorrow: "ttl-of-tomorrow shm-of-tomorrow BF16-of-tomorrow region-not-found-of-tomorrow",
};

/** The steps that went wrong when a driver prints what is right, but for the lines that are given. */
function findFailed(lines: Record<string, string>, noRoom?: string): string[] {
  const all = { ...told, ...lines };
  const printed = stepNames.map((step) =>
    step in all ? `ok ${step} ${all[step as keyof typeof all]}` : `ok ${step} `,
  );
  return [...readOutcomes(printed.join("\n"), truth, noRoom)]
    .filter(([, { kind }]) => kind === "failed")
    .map(([step]) => step);
}

test("a driver that reads everything right has failed nothing", () => {
  expect(findFailed({})).toEqual([]);
});

test("a number that was cut to 32 bits is no number that was read", () => {
  const cut = (value: number | string) => String(Number(value) | 0);
  expect(findFailed({ epoch: cut(truth.epoch) })).toEqual(["epoch"]);
  expect(findFailed({ large: `${cut(largeBytes)} ${cut(largeBytes + 4096)}` })).toEqual(["large"]);
  expect(findFailed({ full: "pool-full 4096 1" })).toEqual(["full"]);
  expect(findFailed({ epoch: "" })).toEqual(["epoch"]);
});

test("a step that a driver does not get to is a step that it failed", () => {
  const outcomes = readOutcomes(right.slice(0, 3).join("\n"), truth, undefined);
  expect([...outcomes.keys()]).toEqual([...stepNames]);
  expect([...outcomes].filter(([, { kind }]) => kind === "ok").map(([step]) => step)).toEqual(stepNames.slice(0, 3));
});

test("a step that failed says why, and a large region is left out for lack of room alone", () => {
  const outcomes = readOutcomes("FAIL get: HTTP 500\nok get ", truth, "needs 4096 MiB");
  expect(outcomes.get("get")).toEqual({ kind: "failed", text: "HTTP 500" });
  expect(outcomes.get("large")).toEqual({ kind: "skipped", text: "needs 4096 MiB" });
});

test("a generator's own bug is no failure, and a bug that is gone is one", () => {
  const row = { ...(rows[0] as Row), bugs: [{ at: "seal", text: "it cannot", place: ["openapi"] }] as const };
  const failed = judge(row, new Map([["seal", { kind: "failed", text: "why" }]]));
  expect(failed.get("seal")).toEqual({ kind: "bug", text: "it cannot" });
  const passed = judge(row, new Map([["seal", { kind: "ok", text: "" }]]));
  expect(passed.get("seal")?.kind).toBe("failed");
});

test("every folder with a row is a row of the check, its files are there, and its bugs name a line of the document", () => {
  const folders = readdirSync(join(root, "tests/generators"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(entry.parentPath, entry.name, "row.ts")))
    .map(({ name }) => name);
  expect(rows.map(({ name }) => name).toSorted()).toEqual(folders.toSorted());
  expect(rows.flatMap(filesOf).filter((path) => !existsSync(path))).toEqual([]);
  for (const row of rows) for (const bug of row.bugs ?? []) expect(lineOf(row, bug)).toMatch(/:\d+$/);
});

test("docs/generators.md has each row, with its generator's version and the document that it reads", () => {
  const lines = readFileSync(join(root, "docs/generators.md"), "utf8").split("\n");
  for (const { name, generator, language, document } of rows) {
    const line =
      lines.find((line) => line.startsWith(`| \`${name}\` |`)) ?? `docs/generators.md has no row for ${name}`;
    for (const said of [generator, language, document]) expect(line).toContain(said);
  }
});
