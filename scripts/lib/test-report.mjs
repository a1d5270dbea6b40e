/**
 * What came of a part's tests: counts and failures, read from the JUnit file that Bun and pytest write at their end, and
 * counts from the lines that they print on the way, for a run that was killed before it.
 */

import { readFileSync } from "node:fs";
import { stripVTControlCharacters } from "node:util";

/** @typedef {{ passed: number, failed: number, skipped: number }} Counts */

/** @type {Counts} */
const none = { passed: 0, failed: 0, skipped: 0 };

/** The numbers of the outermost element that has any: `<testsuites>` for Bun, `<testsuite>` for pytest. */
function countsOf(xml) {
  const [element] = xml.match(/<testsuites?\s[^>]*\btests="\d+"[^>]*>/) ?? [];
  if (element === undefined) return none;
  const number = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(element)?.[1] ?? 0);
  const failed = number("failures") + number("errors");
  const skipped = number("skipped");
  return { passed: number("tests") - failed - skipped, failed, skipped };
}

const entities = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/** Attributes and texts escape these, and new lines by number. */
const toText = (text) =>
  text.replace(/&(?:#(\d+)|#x([0-9A-Fa-f]+)|(\w+));/g, (whole, decimal, hexadecimal, name) => {
    if (name !== undefined) return entities[name] ?? whole;
    return String.fromCodePoint(decimal === undefined ? Number.parseInt(hexadecimal, 16) : Number(decimal));
  });

function attributeOf(tag, name) {
  return toText(new RegExp(`\\s${name}="([^"]*)"`).exec(tag)?.[1] ?? "");
}

/** Test cases that failed, or, which pytest calls an error, could not be imported, set up or taken down. */
function failuresOf(xml) {
  const cases = xml.matchAll(/<testcase\s([^>]*[^/>])>([\s\S]*?)<\/testcase>/g);
  return [...cases].flatMap(([, tag, body]) => {
    const failure = /<(failure|error)\b([^>]*?)(?:\/>|>([\s\S]*?)<\/(?:failure|error)>)/.exec(body);
    if (failure === null) return [];
    const [, kind, attributes, content = ""] = failure;
    const place = attributeOf(` ${tag}`, "file") || attributeOf(` ${tag}`, "classname");
    const text = toText(content).trim() || attributeOf(attributes, "message");
    return [{ test: `${place}: ${attributeOf(` ${tag}`, "name")}`, text, isError: kind === "error" }];
  });
}

/** What tests that passed are called, as `-t` and `-k` see it: after what they are grouped by. Nothing is in their element. */
function passedOf(xml) {
  const cases = xml.matchAll(/<testcase\s([^>]*)\/>/g);
  return [...cases].map(([, tag]) => {
    const groups = attributeOf(` ${tag}`, "classname").split(" > ");
    return [...groups, attributeOf(` ${tag}`, "name")].join(" ");
  });
}

/**
 * @typedef {object} Report
 * @property {Counts} counts
 * @property {string[]} passed the names of tests
 * @property {{ test: string, text: string, isError: boolean }[]} failures
 */

/**
 * @param {string} path a JUnit file
 * @returns {Report | undefined} undefined if there is none, as from a runner that crashed or found no test
 */
export function readReport(path) {
  try {
    const xml = readFileSync(path, "utf8");
    return { counts: countsOf(xml), passed: passedOf(xml), failures: failuresOf(xml) };
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** `(pass) a claim [1.00ms]` of Bun; `[gw0] [ 12%] PASSED tests/…` or `tests/… PASSED [ 12%]` of pytest. */
const outcomes = {
  passed: /^\(pass\) |^(?:\[gw\d+\] \[ *\d+%\] |\S+::.* )PASSED\b/,
  failed: /^\(fail\) |^(?:\[gw\d+\] \[ *\d+%\] |\S+::.* )(?:FAILED|ERROR)\b/,
  skipped: /^\(skip\) |^(?:\[gw\d+\] \[ *\d+%\] |\S+::.* )SKIPPED\b/,
};

/** Counts the results among the lines that a runner prints. */
export class LineCounts {
  /** @type {Counts} */
  counts = { ...none };

  add(line) {
    const text = stripVTControlCharacters(line);
    const outcome = Object.keys(outcomes).find((name) => outcomes[name].test(text));
    if (outcome !== undefined) this.counts[outcome] += 1;
  }
}

/** @param {Counts[]} counts */
export function sum(counts) {
  return counts.reduce(
    (total, { passed, failed, skipped }) => ({
      passed: total.passed + passed,
      failed: total.failed + failed,
      skipped: total.skipped + skipped,
    }),
    none,
  );
}

/** The line that closes a run, in the form that machines look for. */
export const closingLine = ({ passed, failed, skipped }) =>
  `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
