/**
 * What systemd hears of the server (sd_notify(3)): that it is ready, and that it stops. Without a service manager, nothing. No socket is taken
 * over from it: the runtime cannot serve one that it did not open.
 */

import { closeSync } from "node:fs";
import { connectForDatagrams, sendMessage } from "../../memory/os/libc-unix.ts";
import { tell } from "./output.ts";

/** Longest path or name of a Unix socket, without its end. */
const pathBytes = 107;

/**
 * Tells the service manager `lines`, as `READY=1`. What it cannot be told is said on standard error: the server goes on, and the service
 * manager ends it when it has waited long enough.
 *
 * @param path what NOTIFY_SOCKET names: a path, or a name of the abstract namespace after `@`; undefined or empty without a service manager
 */
export function tellServiceManager(path: string | undefined, ...lines: readonly string[]): void {
  if (path === undefined || path === "") return;
  const failure = send(path, lines.join("\n"));
  if (failure !== undefined) tell(`Cannot tell the service manager ${lines[0]}: ${failure}`);
}

/** @returns what stood in the way, or undefined */
function send(path: string, text: string): string | undefined {
  if (!/^[/@][^\0]+$/.test(path) || Buffer.byteLength(path) > pathBytes)
    return `NOTIFY_SOCKET is ${JSON.stringify(path)}, want a path or @name of at most ${pathBytes} bytes`;
  let fd: number | undefined;
  try {
    fd = connectForDatagrams(path);
    if (fd === undefined) return `nobody listens on ${path}, which NOTIFY_SOCKET names`;
    const sending = sendMessage(fd, `${text}\n`);
    return sending === "sent" ? undefined : `${path} takes no message (${sending})`;
  } catch (error) {
    return `${path}: ${error instanceof Error ? error.message : error}`;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
