/** How the server opens files: as `node:fs` does, and with a spare descriptor where there is no other. */

import { openSync, readdirSync, readFileSync } from "node:fs";
import { isOutOfDescriptors, type Stay, withSpare } from "./descriptors.ts";

/** open(2). The caller closes it. @param stay whether it stays open for longer than one call. */
export function openFile(path: string, flags: number | string, mode?: number, stay: Stay = "short"): number {
  return withSpare(() => openSync(path, flags, mode), stay);
}

/** The names in a directory. */
export function listDirectory(path: string): string[] {
  return withSpare(() => readdirSync(path));
}

export function readText(path: string): string {
  return withSpare(() => readFileSync(path, "utf8"));
}

/** As `readText`; undefined if the file cannot be read. Without a descriptor nobody knows, and that is thrown. */
export function readTextIfThere(path: string): string | undefined {
  return orNothing(() => readText(path));
}

/** As `listDirectory`; no names if it cannot be read. */
export function listIfThere(path: string): readonly string[] {
  return orNothing(() => listDirectory(path)) ?? [];
}

function orNothing<Result>(read: () => Result): Result | undefined {
  try {
    return read();
  } catch (error) {
    if (isOutOfDescriptors(error)) throw error;
    return undefined;
  }
}
