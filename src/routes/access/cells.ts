/** The rights as a table for people: which cell says what. `docs/access.md` is made from it, and tests go through it. Pure. */

import type { Role } from "./caller.ts";
import { type Operation, type Reach, rights } from "./rights.ts";

export const whose = ["own", "another's"] as const;
export type Whose = (typeof whose)[number];
type LimitedRole = Exclude<Role, "admin">;
export const limitedRoles = ["worker", "reader"] as const satisfies readonly LimitedRole[];

/** `every model`: only a token that is held to none may. */
export type Cell = "yes" | "no" | "every model";

const cells: Readonly<Record<Reach, readonly [own: Cell, others: Cell]>> = {
  none: ["no", "no"],
  own: ["yes", "no"],
  model: ["yes", "yes"],
  "every-model": ["every model", "every model"],
  any: ["yes", "yes"],
};

export const operations = Object.keys(rights) as Operation[];

export function cellOf(operation: Operation, role: LimitedRole, theirs: Whose): Cell {
  return cells[rights[operation][role]][whose.indexOf(theirs) === 0 ? 0 : 1];
}

/** In Markdown. */
export function toTable(): string {
  const columns = limitedRoles.flatMap((role) => whose.map((theirs) => [role, theirs] as const));
  const head = ["operation", "admin", ...columns.map(([role, theirs]) => `${role}, ${theirs}`)];
  const rows = operations.map((operation) => [
    `\`${operation}\``,
    "yes",
    ...columns.map(([role, theirs]) => cellOf(operation, role, theirs)),
  ]);
  return [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |\n`).join("");
}
