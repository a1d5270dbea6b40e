/** What a benchmark says in the end: one line for each ratio, and a JSON file with everything that was seen. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readMachine, round } from "./machine.ts";
import { resultsDirectory } from "./places.ts";

export interface Ratio {
  /** What is divided by what, in words. */
  readonly what: string;
  readonly ratio: number;
  /** The most it may be; undefined where the number is only told. */
  readonly target?: number;
}

export interface Result {
  readonly benchmark: string;
  readonly question: string;
  readonly ratios: readonly Ratio[];
  readonly details: unknown;
}

/** Prints the ratios and writes `bench/results/<benchmark>-<time>.json`. A missed target is told, not failed: machines differ. */
export function report(result: Result): void {
  for (const { what, ratio, target } of result.ratios) {
    const verdict = target === undefined ? "" : `, target ≤ ${target}: ${ratio <= target ? "met" : "MISSED"}`;
    say(`ratio  ${round(ratio)}  ${what}${verdict}`);
  }
  mkdirSync(resultsDirectory, { recursive: true });
  const at = new Date().toISOString();
  const path = join(resultsDirectory, `${result.benchmark}-${at.replaceAll(/[:.]/g, "-")}.json`);
  const text = JSON.stringify({ at, machine: readMachine(), ...result }, null, 2);
  writeFileSync(path, `${text}\n`);
  say(`wrote  ${path}`);
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
