/** A line of the log as people read it on a terminal, made of the line that machines read. Pure. */

import prettyBytes from "pretty-bytes";
import { toPrintable, toPrintableLine } from "../memory/naming.ts";

const levels: Readonly<Record<number, string>> = {
  10: "trace",
  20: "debug",
  30: "info",
  40: "WARN",
  50: "ERROR",
  60: "FATAL",
};

/** What every line of one server says again, and what its sentence says already. */
const left = new Set(["level", "time", "instance", "msg", "err", "event"]);

type Line = Readonly<Record<string, unknown>>;

/** @param json one line, as pino writes it. What is none passes, as a terminal may have it. */
export function toLogText(json: string): string {
  const line = parse(json);
  if (line === undefined) return toPrintable(json);
  const { level, time, msg, err } = line;
  const facts = Object.entries(line).filter(([key, value]) => !left.has(key) && value !== null);
  const parts = [toClock(time), (levels[Number(level)] ?? "").padEnd(5), toText(msg), ...facts.map(toFact)];
  return `${[parts.filter((part) => part !== "").join("  "), ...toCause(err)].join("\n")}\n`;
}

function parse(json: string): Line | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === "object" && value !== null ? (value as Line) : undefined;
  } catch {
    return undefined;
  }
}

/** In the time zone of who looks at it. */
function toClock(time: unknown): string {
  const at = new Date(String(time));
  return Number.isNaN(at.getTime()) ? "" : at.toTimeString().slice(0, 8);
}

function toFact([key, value]: [string, unknown]): string {
  const isSize = typeof value === "number" && /(^|_)bytes?(_size)?$/.test(key);
  return `${key}=${isSize ? prettyBytes(value, { binary: true }) : toText(value)}`;
}

function toText(value: unknown): string {
  return toPrintableLine(typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
}

/** The failure behind it: its words, what to do, and, of a mistake of ours, where it was. */
function toCause(err: unknown): string[] {
  if (typeof err !== "object" || err === null) return err === undefined || err === null ? [] : [`  ${toText(err)}`];
  const { type, message, facts, stack, code } = err as Line;
  const { hint } = (facts ?? {}) as Line;
  const words = `  ${toText(message ?? type)}`;
  if (hint !== undefined) return [words, `  hint: ${toText(hint)}`];
  const isOurs = code === undefined && typeof stack === "string";
  return isOurs
    ? toPrintable(stack)
        .split("\n")
        .map((each) => `  ${each}`)
    : [words];
}
