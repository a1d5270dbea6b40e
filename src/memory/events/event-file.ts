/**
 * The kept events between two servers: written when one stops in order, read and removed by the next. After a crash
 * there is no such file, and who resumes is told of a gap.
 */

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { withSpare } from "../os/descriptors.ts";
import { readText } from "../os/files.ts";
import type { EventHistory, KeptEvent } from "./event-log.ts";

/**
 * Writes `history` for the next server, whole or not at all, and in one turn: what happened while it was written would
 * never be told.
 */
export function saveEvents(path: string, { next, events }: EventHistory): void {
  const lines = events.map(({ sequence, type, model, session, text, createdBy }) =>
    [sequence, type, model ?? "", session ?? "", text, createdBy ?? ""].join("\t"),
  );
  try {
    const text = [next, ...lines, ""].join("\n");
    withSpare(() => writeFileSync(`${path}.new`, text, { mode: 0o600 }));
    renameSync(`${path}.new`, path);
  } catch (error) {
    rmSync(`${path}.new`, { force: true });
    throw error;
  }
}

/** What was saved, or undefined. The file is gone after that: it tells of one stop only. */
export function takeEvents(path: string): EventHistory | undefined {
  let text: string;
  try {
    text = readText(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  rmSync(path);
  return parseEvents(text);
}

function parseEvents(text: string): EventHistory | undefined {
  const [head, ...lines] = text.split("\n");
  // Every line has its end: a number or a text that was torn off must not pass for a whole one.
  if (lines.pop() !== "") return undefined;
  const next = Number(head);
  const events = lines.map(parseEvent);
  // Only a whole, unbroken row of numbers up to the next one is what a server saved.
  const first = next - events.length;
  const isWhole = events.every((event, index): event is KeptEvent => event?.sequence === first + index);
  return isWhole && Number.isSafeInteger(next) && next > 0 ? { next, events } : undefined;
}

function parseEvent(line: string): KeptEvent | undefined {
  // Lines of servers that knew no tokens end with the text, which is JSON and has no tab.
  const [sequence, type, model, session, text, createdBy] = line.split("\t");
  if (sequence === undefined || type === undefined || text === undefined) return undefined;
  const topic = { model: model || null, session: session || null, ...(createdBy && { createdBy }) };
  return { sequence: Number(sequence), type, ...topic, text };
}
