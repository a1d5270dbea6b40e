/** What this program tells the server of itself: for people who ask who maps what, never for decisions. */

import { hostname } from "node:os";
import { basename } from "node:path";

/** Characters of each text that the server takes. */
const maxCharacters = 256;

/** A session's `client`: `name` or the script's, and this process's pid. */
export function describeProgram(name: string | undefined) {
  return {
    name: name ?? toShown(basename(process.argv[1] ?? process.argv0)),
    pid: process.pid,
    hostname: toShown(hostname()),
  };
}

/** What people can read of it: a file's name may have control characters, and be any bytes. */
function toShown(text: string): string {
  return text.slice(0, maxCharacters).replaceAll(/[\p{Cc}\p{Cs}]/gu, "\ufffd");
}
