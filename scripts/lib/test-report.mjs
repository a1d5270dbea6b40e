/** Counts of tests, read from the JUnit files that Bun and pytest write. */

import { readFileSync } from "node:fs";

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

/**
 * @param {string} path a JUnit file; a missing one counts nothing, since a runner that crashed or found no test writes none
 * @returns {{ passed: number, failed: number, skipped: number }}
 */
export function readCounts(path) {
  try {
    return countsOf(readFileSync(path, "utf8"));
  } catch (error) {
    if (error.code === "ENOENT") return none;
    throw error;
  }
}

/** @param {{ passed: number, failed: number, skipped: number }[]} counts */
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
