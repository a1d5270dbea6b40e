/** The label by which a loaded region says of which file it is. Who says another one of this name is believed. Pure. */

import { limits } from "../memory/limits.ts";

export const fileLabel = "tensord.file";

/** The path, or, where it is too long for a label, its end, which tells one from another. */
export function toFileLabel(path: string): string {
  return path.length <= limits.labelValueCharacters ? path : `…${path.slice(1 - limits.labelValueCharacters)}`;
}
