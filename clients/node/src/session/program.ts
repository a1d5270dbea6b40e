/** What this program tells the server of itself: for people who ask who maps what, never for decisions. */

import { readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { basename } from "node:path";

/** Characters of each text that the server takes. */
const maxCharacters = 256;

/** A session's `client`: `name` or the script's, and this process's pid. */
export function describeProgram(name: string | undefined) {
  return {
    name: name ?? toShown(basename(process.argv[1] ?? process.argv0)),
    pid: process.pid,
    ...pidNamespace(),
    hostname: toShown(hostname()),
  };
}

/**
 * What the environment calls this process's session, for where its host name and PID say nothing: each container of a pod is PID 1
 * on one host name.
 */
export function sessionName(env: Readonly<Record<string, string | undefined>> = process.env): string | undefined {
  return toShown(env.TENSORD_SESSION_NAME ?? "") || undefined;
}

/** Where this process is called by its pid: in a container another one is called so on the host. */
function pidNamespace(): { readonly pidNamespace?: string } {
  try {
    return { pidNamespace: readlinkSync("/proc/self/ns/pid") };
  } catch {
    return {};
  }
}

/** What people can read of it: a file's name may have control characters, and be any bytes. */
function toShown(text: string): string {
  return text.slice(0, maxCharacters).replaceAll(/[\p{Cc}\p{Cs}]/gu, "\ufffd");
}
