/** `Range` of a download and `Content-Range` of an upload (RFC 9110, section 14), as parts of a region's data. Pure. */

import { TensordError } from "../memory/error.ts";
import type { DataSlice } from "../memory/regions/data.ts";

/** A part of `size` bytes: from `first` to `last`, both included. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/**
 * The part that `Range` asks for, or undefined if it asks for none that we know: another unit is to be ignored.
 * @throws TensordError `range-not-satisfiable` for what is malformed, outside of the data, or several ranges at once.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | undefined {
  const unit = /^\s*([!#$%&'*+.^_`|~\w-]+)\s*=/.exec(header ?? "")?.[1];
  if (header === undefined || (unit !== undefined && unit.toLowerCase() !== "bytes")) return undefined;
  const match = /^\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$/i.exec(header);
  if (match === null) throw unsatisfiable("Range", header, size, "want one range such as bytes=0-1023");
  const [, from = "", to = ""] = match;
  if (from === "" && to === "") throw unsatisfiable("Range", header, size, "want one range such as bytes=0-1023");
  if (from === "") return toRange(header, size, Math.max(0, size - Number(to)), Number(to) === 0 ? -1 : size - 1);
  return toRange(header, size, Number(from), to === "" ? size - 1 : Math.min(Number(to), size - 1), to);
}

function toRange(header: string, size: number, first: number, last: number, to = ""): ByteRange {
  if (first < size && first <= last) return { first, last };
  const why = to !== "" && Number(to) < first ? "its end is before its begin" : `want a part of ${size} bytes`;
  throw unsatisfiable("Range", header, size, why);
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
    hint: "Offsets count from the beginning of the tensor, or of all data without ?tensor=. Ask for one range at a time.",
  });
}
