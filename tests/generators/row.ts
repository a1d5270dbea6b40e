/** What a row of the generator check says of itself. `rows.ts` has them all; CONTRIBUTING says how one is added. */

import { join } from "node:path";
import type { Step } from "./steps.ts";
import type { Work } from "./work.ts";

export interface Row {
  /** Its folder's name below `tests/generators`. */
  readonly name: string;
  /** The generator and its exact version. */
  readonly generator: string;
  /** In which language the client is, and what it is built on. */
  readonly language: string;
  /** What the generator reads; below the root. */
  readonly document: "openapi.yaml" | "openapi-3.0.yaml";
  /** Without one of them the row is skipped. */
  readonly needs: readonly Need[];
  /** The driver, and what else is compiled with it: files of the row's folder, copied into the work's. */
  readonly files: readonly string[];
  /** Gets the generator, and what else is kept from one run to the next, if the repository has not got it. */
  readonly fetch?: (work: Work) => Promise<unknown>;
  /** @returns what the generator said. */
  readonly generate: (work: Work) => Promise<string>;
  readonly compile: (work: Work) => Promise<unknown>;
  /** The driver's command line; what `steps.ts` says is appended. Or why there is none, and `compile` but reads the client. */
  readonly drive: ((work: Work) => readonly string[] | Promise<readonly string[]>) | string;
  /** What the generator is to be blamed for. Such a failure is no failure of the row; its absence is. */
  readonly bugs?: readonly GeneratorBug[];
}

/** A program that must be on the PATH. */
export interface Need {
  readonly command: string;
  /** With these it prints its version. */
  readonly version: readonly string[];
  /** What to install, for whoever has it not. */
  readonly want: string;
}

export interface GeneratorBug {
  readonly at: "generate" | "compile" | Step;
  readonly text: string;
  /** Where in the document it stumbles. */
  readonly place: readonly (string | number)[];
}

/** The paths of the row's files. */
export function filesOf({ name, files }: Row): string[] {
  return files.map((file) => join(import.meta.dirname, name, file));
}
