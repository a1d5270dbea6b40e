/**
 * Which of the tensors to be stored share memory, so that they share it in the region as well: an alias is one whose bytes
 * are another's, whole or inside it. What overlaps otherwise is copied apart, with a warning. Two views share memory if they
 * are of one buffer.
 */

import { quote } from "../check/value.ts";
import { elementBytesOf } from "../dtype.ts";
import type { Source } from "./sources.ts";

const shownPairs = 4;

/** A source that has content, of at least one byte. */
type Filled = Source & { readonly bytes: Uint8Array };

type Place = Pick<Source, "aliasOf" | "aliasByteOffset">;

/** The sources, with those marked that are aliases. Warns of what shares memory and is copied apart. */
export function tie(sources: readonly Source[]): readonly Source[] {
  if (sources.length < 2) return sources;
  const places = new Map<Source, Place>();
  const torn: string[] = [];
  for (const views of byBuffer(sources)) findInside(views, places, torn);
  if (torn.length > 0) tell(torn);
  return sources.map((source) => ({ ...source, ...places.get(source) }));
}

function byBuffer(sources: readonly Source[]): Iterable<Filled[]> {
  const views = new Map<ArrayBufferLike, Filled[]>();
  for (const source of sources) {
    if (!isFilled(source)) continue;
    const { buffer } = source.bytes;
    const others = views.get(buffer);
    if (others === undefined) views.set(buffer, [source]);
    else others.push(source);
  }
  return views.values();
}

function isFilled(source: Source): source is Filled {
  return source.bytes !== undefined && source.bytes.byteLength > 0;
}

function findInside(views: Filled[], places: Map<Source, Place>, torn: string[]): void {
  // What comes first in the call has the bytes, of several that are as long.
  views.sort((a, b) => a.bytes.byteOffset - b.bytes.byteOffset || b.bytes.byteLength - a.bytes.byteLength);
  // Of all that began earlier, the one that ends last has what anyone has.
  let widest: Filled | undefined;
  for (const view of views) {
    if (widest === undefined || view.bytes.byteOffset >= endOf(widest)) {
      widest = view;
    } else if (endOf(view) > endOf(widest)) {
      torn.push(`${both(widest, view)}, which overlap in part`);
      widest = view;
    } else if (isAligned(view, widest)) {
      places.set(view, { aliasOf: widest.name, aliasByteOffset: view.bytes.byteOffset - widest.bytes.byteOffset });
    } else {
      torn.push(`${both(widest, view)}, whose elements would not be aligned`);
    }
  }
}

function endOf({ bytes }: Filled): number {
  return bytes.byteOffset + bytes.byteLength;
}

/** As the server asks of an alias (docs/protocol.md). */
function isAligned({ dtype, bytes }: Filled, target: Filled): boolean {
  const multiple = elementBytesOf(dtype);
  return (bytes.byteOffset - target.bytes.byteOffset) % multiple === 0 && target.bytes.byteLength % multiple === 0;
}

function both(a: Source, b: Source): string {
  return `${quote(a.name)} and ${quote(b.name)}`;
}

function tell(torn: readonly string[]): void {
  const more = torn.length > shownPairs ? `; and ${torn.length - shownPairs} more pairs` : "";
  process.emitWarning(
    `Tensors that share memory are copied apart: ${torn.slice(0, shownPairs).join("; ")}${more}. In the region each has ` +
      "bytes of its own. What lies whole inside another tensor stays one memory; pass copies (slice) of what need not " +
      "share any.",
    { type: "TensordWarning", code: "copied-apart" },
  );
}
