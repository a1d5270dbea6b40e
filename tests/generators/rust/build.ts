/** How the drivers in Rust are compiled: what they are built on is pinned by the row's `Cargo.lock`. */

import { basename, join } from "node:path";
import type { Need } from "../row.ts";
import type { Work } from "../work.ts";

export const needsCargo: Need = { command: "cargo", version: ["--version"], want: "Rust 1.88 or newer" };

/** One for all rows, and kept: to build a client's libraries takes much longer than to build the client. */
const targetOf = (work: Work) => join(work.tools, "cargo");

export function fetchCrates(work: Work): Promise<string> {
  return work.run(["cargo", "fetch", "--locked"]);
}

export function buildRust(work: Work): Promise<string> {
  return work.run(["cargo", "build", "--locked", "--offline", "--quiet", "--target-dir", targetOf(work)]);
}

/** The driver has its row's name: all of them are in one folder. */
export const driveRust = (work: Work) => [join(targetOf(work), "debug", basename(work.folder))];
