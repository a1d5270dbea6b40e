/** `tensord completion`: a script that tells a shell what may come next. It asks no server, and is made anew by each version. */

import type { Command } from "commander";
import { toBash } from "./bash.ts";
import { toFish } from "./fish.ts";
import { type ProgramShape, readShape } from "./shape.ts";
import { toZsh } from "./zsh.ts";

const scripts = { bash: toBash, zsh: toZsh, fish: toFish } satisfies Record<string, (program: ProgramShape) => string>;

export type Shell = keyof typeof scripts;

export const shells = Object.keys(scripts) as readonly Shell[];

export function completion(program: Command, shell: Shell): string {
  return scripts[shell](readShape(program));
}
