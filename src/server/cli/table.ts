/** Tables and byte sizes for people. Programs ask for `--json`. */

import Table from "cli-table3";
import prettyBytes from "pretty-bytes";
import { toPrintableLine } from "../../memory/naming.ts";

const bare = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: "  ",
};

/** Rows under a header, without lines, for a terminal or a pipe. */
export function toTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const style = { head: [], border: [], "padding-left": 0, "padding-right": 0, compact: true };
  const table = new Table({ chars: bare, style, head: [...head] });
  table.push(...rows.map((row) => row.map(toPrintableLine)));
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

export function toBytes(bytes: number): string {
  return prettyBytes(bytes, { binary: true });
}

/** How long from now, or how long ago, in its largest unit. */
export function toSpan(ms: number): string {
  const seconds = Math.abs(ms) / 1000;
  for (const [unit, size] of [
    ["d", 86_400],
    ["h", 3600],
    ["min", 60],
  ] as const) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

export function toJson(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
