/** What was found, for people: a table, and below it each failure and each bug with the line of the document. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import Table from "cli-table3";
import { isNode, LineCounter, parseDocument } from "yaml";
import { root } from "../harness/instance-needs.ts";
import type { Finding } from "./examine.ts";
import type { GeneratorBug, Row } from "./row.ts";
import { stepNames } from "./steps.ts";

const marks = { ok: "yes", failed: "NO", bug: "its bug", skipped: "skipped" } as const;

export function hasFailed({ stages }: Finding): boolean {
  return [...stages.values()].some(({ kind }) => kind === "failed");
}

export function toReport(findings: readonly Finding[]): string {
  const table = new Table({
    head: ["", "generator", "document", "generated", "compiled", "driven"],
    style: { head: [], border: [] },
  });
  for (const finding of findings) {
    const { row, stages, skipped } = finding;
    const stage = (name: "generate" | "compile") => marks[stages.get(name)?.kind ?? "skipped"];
    const compiled = typeof row.drive === "string" && stages.get("compile")?.kind === "ok" ? "read" : stage("compile");
    const tried = skipped === undefined ? [stage("generate"), compiled, toDriven(finding)] : ["skipped", "", ""];
    table.push([row.name, row.generator, row.document, ...tried]);
  }
  return [table.toString(), ...findings.flatMap(toRemarks)].join("\n");
}

/** How many steps went well, and which did not. */
function toDriven({ stages }: Finding): string {
  const others = stepNames.filter((step) => stages.get(step)?.kind !== "ok");
  if (others.length === stepNames.length) return "";
  const listed = others.map((step) => `${step} (${marks[stages.get(step)?.kind ?? "skipped"]})`);
  return [`${stepNames.length - others.length} of ${stepNames.length}`, ...listed].join("\n");
}

function toRemarks({ row, stages, skipped }: Finding): string[] {
  if (skipped !== undefined) return [`\n${row.name} was skipped: ${skipped}`];
  const undriven = typeof row.drive === "string" ? [`\n${row.name} is not driven: ${row.drive}`] : [];
  const remarks = [...stages]
    .filter(([, { kind }]) => kind !== "ok")
    .map(([stage, { kind, text }]) => {
      const bug = row.bugs?.find(({ at }) => at === stage);
      return `\n${row.name}, ${stage}: ${marks[kind]}${kind === "bug" && bug ? ` (${lineOf(row, bug)})` : ""}: ${text}`;
    });
  return [...undriven, ...remarks];
}

/** @throws Error if the document has not what the bug is about. */
export function lineOf({ document }: Row, { place }: GeneratorBug): string {
  const lineCounter = new LineCounter();
  const node = parseDocument(readFileSync(join(root, document), "utf8"), { lineCounter }).getIn(place, true);
  if (!isNode(node) || !node.range) throw new Error(`${document} has no ${place.join("/")}, which a bug is about`);
  return `${document}:${lineCounter.linePos(node.range[0]).line}`;
}
