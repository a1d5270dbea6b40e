/**
 * The committed documents as others read YAML: readers of 1.1, who take 12:30 for a number and an unquoted time for a date,
 * get the same as those of 1.2.
 */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { toYaml } from "../../scripts/yaml.ts";
import { needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";

const documents = ["openapi.yaml", "openapi-3.0.yaml", "asyncapi.yaml"];
const readText = (name: string) => readFileSync(join(root, name), "utf8");

/** What 1.1 makes of each of these is no text, or another text. */
const traps = {
  times: ["2026-11-21T12:00:00.000Z", "2026-11-21", "12:30:45"],
  address: "0000:19:00.0",
  numbers: ["0123", "0x1F", "1_000", "+1", "1e3", ".5", "0b1", "190:20:30.15"],
  words: ["yes", "No", "on", "OFF", "y", "n", "true", "~", "null", "<<"],
  digits: "1795000000000123",
};

/** As PyYAML reads it, as JSON. What JSON has no word for comes as `<class 'datetime.date'>`, and so equals nothing. */
function readWithPyYaml(text: string): unknown {
  const program =
    "import json, sys, yaml; json.dump(yaml.load(sys.stdin.buffer, yaml.CSafeLoader), sys.stdout, default=lambda v: str(type(v)))";
  const { stdout, stderr, exitCode } = Bun.spawnSync([stockPython, "-c", program], { stdin: Buffer.from(text) });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

describe("as YAML 1.1 and as YAML 1.2", () => {
  for (const name of documents) {
    test(`${name} is the same`, () => {
      const text = readText(name);
      expect(parse(text, { version: "1.1" })).toEqual(parse(text, { version: "1.2" }));
    });

    testWith(needsStockPython)(`${name} is the same to PyYAML`, async () => {
      const text = readText(name);
      expect(readWithPyYaml(text)).toEqual(parse(text));
    });
  }

  test("a document keeps what 1.1 would take for a time, a number or a truth", () => {
    for (const version of ["1.1", "1.2"] as const) expect(parse(toYaml("", traps), { version })).toEqual(traps);
  });

  testWith(needsStockPython)("a document keeps all of that for PyYAML, too", async () => {
    expect(readWithPyYaml(toYaml("", traps))).toEqual(traps);
  });
});
