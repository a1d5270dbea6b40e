/** Takes one row through all that it has to show: fetch, generate, compile, drive a real server. */

import { rmSync } from "node:fs";
import { join } from "node:path";
import { needsRoom } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { drive } from "./drive.ts";
import { filesOf, type GeneratorBug, type Row } from "./row.ts";
import { largeBytes, type Outcome, type Step } from "./steps.ts";
import { Work, workParent } from "./work.ts";

type Stage = GeneratorBug["at"];

export interface Finding {
  readonly row: Row;
  /** Why nothing was tried. */
  readonly skipped?: string;
  /** The stages that were come to. A failure that the generator is to blame for is a "bug". */
  readonly stages: ReadonlyMap<Stage, Judged>;
}

export interface Judged {
  readonly kind: Outcome["kind"] | "bug";
  readonly text: string;
}

/** Beside the region itself: what the drivers' other regions take, and the server's own. */
const marginBytes = 64 * 2 ** 20;

/** @param say gets a line of progress as it comes */
export async function examine(row: Row, say: (line: string) => void): Promise<Finding> {
  const stages = new Map<Stage, Outcome>();
  const finding = (skipped?: string): Finding => ({
    row,
    stages: judge(row, stages),
    ...(skipped !== undefined && { skipped }),
  });
  const work = new Work(join(workParent, row.name), row.document);
  rmSync(work.folder, { recursive: true, force: true });
  work.layOut(filesOf(row));

  const lacking = await findLacking(row, work);
  if (lacking !== undefined) return finding(lacking);
  say("fetch");
  try {
    await row.fetch?.(work);
  } catch (error) {
    return finding(`cannot fetch ${row.generator}: ${messageOf(error)}`);
  }
  for (const stage of ["generate", "compile"] as const) {
    say(stage);
    try {
      await row[stage](work);
      stages.set(stage, { kind: "ok", text: "" });
    } catch (error) {
      stages.set(stage, { kind: "failed", text: messageOf(error) });
      return finding();
    }
  }
  if (typeof row.drive === "string") return finding();
  say("drive");
  try {
    for (const [step, outcome] of await driveAlone(row, work)) {
      stages.set(step, outcome);
      say(`  ${outcome.kind} ${step}${outcome.text === "" ? "" : `: ${outcome.text}`}`);
    }
  } catch (error) {
    // The server: it did not start, or logged what it should not have.
    stages.set("end", { kind: "failed", text: messageOf(error) });
  }
  return finding();
}

/** @returns what to install, if one of the row's needs is missing */
async function findLacking(row: Row, work: Work): Promise<string | undefined> {
  for (const { command, version, want } of row.needs) {
    const { status } = await work.try([command, ...version]);
    if (status !== 0) return `needs ${want}: there is no ${command} that answers \`${version.join(" ")}\``;
  }
  return undefined;
}

async function driveAlone(row: Row, work: Work): Promise<ReadonlyMap<Step, Outcome>> {
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  return await drive(row, work, await server.readUrl(), needsRoom(largeBytes + marginBytes));
}

/** Bugs that are known are told apart from failures, and one that is not there any more is a failure itself. */
export function judge(row: Row, stages: ReadonlyMap<Stage, Outcome>): ReadonlyMap<Stage, Judged> {
  const judged = new Map<Stage, Judged>(stages);
  for (const { at, text } of row.bugs ?? []) {
    const kind = stages.get(at)?.kind;
    if (kind === "failed") judged.set(at, { kind: "bug", text });
    if (kind === "ok") judged.set(at, { kind: "failed", text: `passes, and the row has a bug for it: ${text}` });
  }
  return judged;
}

/** Why something failed. @throws the error itself where the user has stopped us, which is no finding about a row. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error) || error.name === "Stopped") throw error;
  return error.message;
}
