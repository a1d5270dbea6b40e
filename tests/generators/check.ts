/**
 * The generator check: every row, or those that are named, one after another; progress as it goes, and a table at the end.
 * Leaves with 1 if a row failed, or nothing was tried.
 */

import { join } from "node:path";
import { root } from "../harness/instance-needs.ts";
import { examine, type Finding } from "./examine.ts";
import type { Row } from "./row.ts";
import { rows } from "./rows.ts";
import { hasFailed, toReport } from "./table.ts";

const { main, secondsSince, Failure } = (await import(join(root, "scripts/lib/process.mjs"))) as {
  main: (body: () => Promise<number>) => Promise<void>;
  secondsSince: (startMs: number) => string;
  Failure: new (message: string) => Error;
};

await main(() => check(process.argv.slice(2)));

async function check(args: readonly string[]): Promise<number> {
  const chosen = choose(args.filter((arg) => arg !== "--list"));
  if (args.includes("--list")) {
    for (const { name, generator, language, document } of chosen)
      console.log(`${name}: ${generator} → ${language}, from ${document}`);
    return 0;
  }
  const findings: Finding[] = [];
  const start = performance.now();
  for (const row of chosen) {
    console.log(`${row.name}: ${row.generator} → ${row.language}, from ${row.document}`);
    const finding = await examine(row, (line) => console.log(`  ${secondsSince(start).padStart(8)}  ${line}`));
    if (finding.skipped !== undefined) console.log(`  skipped: ${finding.skipped}`);
    findings.push(finding);
  }
  console.log(toReport(findings));
  return findings.some(hasFailed) || findings.every(({ skipped }) => skipped !== undefined) ? 1 : 0;
}

function choose(names: readonly string[]): readonly Row[] {
  const unknown = names.filter((name) => !rows.some((row) => row.name === name));
  if (unknown.length > 0)
    throw new Failure(
      `Cannot check ${unknown.join(", ")}: there are no such rows, want some of ${rows.map(({ name }) => name).join(", ")}`,
    );
  return names.length === 0 ? rows : rows.filter(({ name }) => names.includes(name));
}
