/** How the server opens files: as `node:fs` does, and with a spare descriptor where there is no other. */

import { openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { SystemError } from "../error.ts";
import { limits } from "../limits.ts";
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

/** Fills `bytes` from `byteOffset` of the file on, by pread(2). @throws SystemError `EOF` if the file ends before. */
export function readWhole(fd: number, bytes: Buffer, byteOffset: number): void {
  for (let done = 0; done < bytes.length; ) {
    const piece = Math.min(bytes.length - done, limits.hashReadBytes);
    const got = readSync(fd, bytes, done, piece, byteOffset + done);
    if (got === 0) throw new SystemError("pread", 0, "EOF");
    done += got;
  }
}

function orNothing<Result>(read: () => Result): Result | undefined {
  try {
    return read();
  } catch (error) {
    if (isOutOfDescriptors(error)) throw error;
    return undefined;
  }
}
