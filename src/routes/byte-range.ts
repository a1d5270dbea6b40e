/** `Range` of a download and `Content-Range` of an upload (RFC 9110, section 14), as parts of a region's data. Pure. */

import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import type { DataSlice } from "../memory/regions/data.ts";

/** A part of `size` bytes: from `first` to `last`, both included. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/**
 * The parts that `Range` asks for, or undefined if it asks for none that we know: another unit is to be ignored. They come in
 * the order in which they were asked for; those that overlap or touch are one. Of several, those outside of the data are left out.
 * @throws TensordError `range-not-satisfiable` for what is malformed, too many, or all outside of the data.
 */
export function parseRanges(header: string | undefined, size: number): readonly ByteRange[] | undefined {
  const unit = /^\s*([!#$%&'*+.^_`|~\w-]+)\s*=/.exec(header ?? "")?.[1];
  if (header === undefined || (unit !== undefined && unit.toLowerCase() !== "bytes")) return undefined;
  const list = /^\s*bytes\s*=([^=]*)$/i.exec(header)?.[1] ?? "";
  // A list may have empty elements: RFC 9110, 5.6.1.
  const specs = list
    .split(",")
    .map((spec) => spec.trim())
    .filter((spec) => spec !== "");
  if (specs.length === 0) throw unsatisfiable("Range", header, size, "want one range such as bytes=0-1023, or several");
  if (specs.length > limits.ranges) {
    throw unsatisfiable("Range", header, size, `it has ${specs.length} ranges, want at most ${limits.ranges}`);
  }
  const ranges = specs.map((spec) => toRange(header, spec, size)).filter((range) => range !== undefined);
  if (ranges.length === 0) throw unsatisfiable("Range", header, size, `want a part of ${size} bytes`);
  return coalesce(ranges);
}

/** @returns undefined if no byte of it is there. */
function toRange(header: string, spec: string, size: number): ByteRange | undefined {
  const [, from, to] = /^(\d*)\s*-\s*(\d*)$/.exec(spec) ?? [];
  if (from === undefined || to === undefined || (from === "" && to === "")) {
    throw unsatisfiable("Range", header, size, "want such as bytes=0-1023, bytes=1024- or bytes=-1024");
  }
  if (from !== "" && to !== "" && Number(to) < Number(from)) {
    throw unsatisfiable("Range", header, size, "its end is before its begin");
  }
  // The last bytes: of -0 none, since `first` is then behind the end.
  const first = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const last = from === "" || to === "" ? size - 1 : Math.min(Number(to), size - 1);
  return first <= last ? { first, last } : undefined;
}

function coalesce(ranges: readonly ByteRange[]): readonly ByteRange[] {
  const parts: ByteRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = parts.at(-1);
    if (before === undefined || range.first > before.last + 1) parts.push(range);
    else parts[parts.length - 1] = { first: before.first, last: Math.max(before.last, range.last) };
  }
  const rank = ({ first, last }: ByteRange) => ranges.findIndex((range) => range.first >= first && range.first <= last);
  return parts.toSorted((a, b) => rank(a) - rank(b));
}

/** The part that an upload fills. @throws TensordError `range-not-satisfiable`. */
export function parseContentRange(header: string | undefined, size: number): ByteRange | undefined {
  if (header === undefined) return undefined;
  const match = /^\s*bytes\s+(\d+)-(\d+)\/(\d+|\*)\s*$/i.exec(header);
  const [, first, last, total] = (match ?? []).map(Number);
  if (first === undefined || last === undefined || first > last) {
    throw unsatisfiable("Content-Range", header, size, "want such as bytes 0-1023/4096, or with /*");
  }
  if (last >= size || (total !== undefined && !Number.isNaN(total) && total !== size)) {
    throw unsatisfiable("Content-Range", header, size, `want a part of ${size} bytes`);
  }
  return { first, last };
}

/** The part of the region's file that is meant. */
export function toSlice(whole: DataSlice, range: ByteRange | undefined): DataSlice {
  if (range === undefined) return whole;
  return { byteOffset: whole.byteOffset + range.first, byteSize: range.last - range.first + 1 };
}

function unsatisfiable(name: string, header: string, size: number, why: string): TensordError {
  const shown = JSON.stringify(header.slice(0, 80));
  return new TensordError("range-not-satisfiable", `Cannot use ${name} ${shown}: ${why}`, {
    complete_length: size,
    hint: "Offsets count from the beginning of what is asked for: a tensor, all data, or the file.",
  });
}
