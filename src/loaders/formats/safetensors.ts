/** A safetensors file: the layout's own parser, fed with as much of the file as its header takes. Pure. */

import { readHeaderText } from "../../memory/layout/header-text.ts";
import { headerByteSize, parseHeader } from "../../memory/layout/layout.ts";
import { limits } from "../../memory/limits.ts";
import type { Parsed, Wanted } from "./format.ts";

const lengthBytes = 8;

/** @throws TensordError `validation-failed` with the broken rule. */
export function parseSafetensors(prefix: Uint8Array, byteSize: number | undefined): Parsed | Wanted {
  const known = byteSize ?? limits.regionBytes;
  if (prefix.length < lengthBytes && known >= lengthBytes) return { wantedBytes: lengthBytes };
  const wantedBytes = headerByteSize(prefix, known);
  if (prefix.length < wantedBytes) return { wantedBytes };
  const size = byteSize ?? endOfData(prefix.subarray(lengthBytes, wantedBytes)) + wantedBytes;
  return { ...parseHeader(prefix, size), byteSize: size };
}

/** Where the last tensor ends, from the start of the data: what a content has to have that is not measured yet. */
function endOfData(header: Uint8Array): number {
  let end = 0;
  for (const { dataOffsets } of readHeaderText(header).entries) end = Math.max(end, dataOffsets[1]);
  return end;
}
