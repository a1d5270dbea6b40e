/** How the committed documents are written: so that readers of YAML 1.1 and of 1.2 read the same. */

import { stringify } from "yaml";

/** @param head comments that the text begins with. */
export function toYaml(head: string, document: unknown): string {
  // Of what 1.1 takes for a number, a date or a truth, `compat` quotes each.
  return head + stringify(document, { compat: "yaml-1.1", lineWidth: 120, aliasDuplicateObjects: false });
}
