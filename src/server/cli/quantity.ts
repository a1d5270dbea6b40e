/** How sizes, durations, tensors and labels are written on the command line. Pure; every bad spelling has its sentence. */

import { TensordError } from "../../memory/error.ts";
import { dtypes, isDtype } from "../../memory/layout/dtype.ts";
import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";

interface Measure {
  readonly units: Readonly<Record<string, number>>;
  readonly min: number;
  readonly max: number;
  readonly example: string;
}

const byteSize: Measure = {
  units: {
    B: 1,
    KiB: 1024,
    MiB: 1024 ** 2,
    GiB: 1024 ** 3,
    TiB: 1024 ** 4,
    kB: 1000,
    KB: 1000,
    MB: 1000 ** 2,
    GB: 1000 ** 3,
    TB: 1000 ** 4,
  },
  min: 0,
  max: limits.regionBytes,
  example: "1536MiB",
};

const duration: Measure = {
  units: { s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 },
  min: 1,
  max: limits.ttlMs,
  example: "90min",
};

/** Bytes of `1GiB`, `4096 B`, `20MB`. @throws TensordError that names the flag and what is wrong. */
export function parseByteSize(flag: string, text: string): number {
  return parse(byteSize, flag, text);
}

/** Milliseconds of `30s`, `10min`, `12h`, `7d`. @throws TensordError that names the flag and what is wrong. */
export function parseDurationMs(
  flag: string,
  text: string,
  bounds: Partial<Pick<Measure, "min" | "max">> = {},
): number {
  return parse({ ...duration, ...bounds }, flag, text);
}

function parse({ units, min, max, example }: Measure, flag: string, text: string): number {
  const [, digits, word = ""] = /^(\d+) ?([A-Za-z]*)$/.exec(text) ?? [];
  const want = `want a whole number and ${Object.keys(units).join(", ")}, as ${example}`;
  if (digits === undefined) throw unreadable(flag, text, "it is no number with a unit", want);
  if (word === "") throw unreadable(flag, text, "it has no unit", want);
  const unit = Object.hasOwn(units, word) ? units[word] : undefined;
  if (unit === undefined) throw unreadable(flag, text, `${quote(word)} is no unit`, want);
  // As integers of any length: what a number rounds must not pass for what was written.
  const value = BigInt(digits) * BigInt(unit);
  if (value < BigInt(min)) throw unreadable(flag, text, "it is too small", "want more than 0");
  if (value > BigInt(max)) throw unreadable(flag, text, "it is too large", `want at most ${toWords(max, units)}`);
  return Number(value);
}

/** In the largest unit of which it is a whole number. */
function toWords(value: number, units: Measure["units"]): string {
  const [word, unit] = Object.entries(units).findLast(([, size]) => value % size === 0) ?? ["", 1];
  return `${value / unit}${word}`;
}

/** A tensor of `w:F32:1024x1024`; without sizes, as in `x:F32:`, it is a scalar. The name may hold colons. */
export function parseTensor(text: string): { name: string; dtype: string; shape: number[] } {
  const [, name, dtype, sizes] = /^(.*):([^:]*):([^:]*)$/s.exec(text) ?? [];
  if (name === undefined || dtype === undefined || sizes === undefined || name === "") {
    const want = "want name:dtype:shape, as w:F32:1024x1024, or x:F32: for a scalar";
    throw unreadable("--tensor", text, "it has not the three parts", want);
  }
  if (!isDtype(dtype)) {
    throw unreadable("--tensor", text, `${quote(dtype)} is no dtype`, `want one of ${dtypes.join(", ")}`);
  }
  const shape = sizes === "" ? [] : sizes.split("x").map((size) => (/^\d+$/.test(size) ? Number(size) : Number.NaN));
  if (!shape.every(Number.isSafeInteger)) {
    throw unreadable("--tensor", text, `${quote(sizes)} is no shape`, "want sizes joined by x, as 1024x1024");
  }
  return { name, dtype, shape };
}

/** A label of `key=value`. */
export function parseLabel(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw unreadable("--label", text, "it has no key and value", "want key=value");
}

/** A whole number from 1 on. */
export function parseCount(flag: string, text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw unreadable(flag, text, "it is no count", "want a whole number from 1 on");
}

function unreadable(flag: string, text: string, state: string, want: string): TensordError {
  return new TensordError("validation-failed", `Cannot read ${flag} ${quote(text)}: ${state}, ${want}`);
}
