/** Judges regions that are files of somebody else's: whether the files still are what was loaded. */

import type { Facts } from "./facts.ts";
import { type Finding, fine, warning } from "./finding.ts";
import { thresholds } from "./thresholds.ts";
import { count, listSome } from "./words.ts";

export function judgeFiles({ server }: Facts): Finding | undefined {
  const check = "model-files";
  const { mapped = 0, changed = [] } = server?.files ?? {};
  if (mapped === 0) return undefined;
  const files = `${count(mapped, "region")} ${mapped === 1 ? "is a model file" : "are model files"} that ${mapped === 1 ? "is" : "are"} mapped`;
  if (changed.length === 0) return fine(check, `${files}, as ${mapped === 1 ? "it was" : "they were"} loaded.`);
  const told = changed.map(({ description, path, state }) => `${description}, ${path}: ${state}`);
  return warning(
    check,
    `${files}; of ${changed.length} the file is not the file any more that was loaded: ${listSome(told, thresholds.shownItems)}.`,
    "Load it again, which makes another version; nobody attaches to the old one, and delete it once nobody maps it. Replace a model file by a rename: who writes into one changes what others compute with.",
  );
}
