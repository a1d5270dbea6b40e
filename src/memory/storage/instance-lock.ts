/**
 * The lock that makes a server the only one of its instance: an open file description of the file `lock` owns it, so it goes with
 * the last copy of that, whoever has it.
 */

import { closeSync, ftruncateSync, readFileSync, writeSync } from "node:fs";
import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { tryLockFile } from "../os/libc.ts";
import { connectForMessages, readPeerCredentials } from "../os/libc-unix.ts";
import { socketName } from "./fd-holder/protocol.ts";

/**
 * Takes the instance's lock. That of a server which is gone lives on while the fd holder has not read what it was sent, which is
 * waited for: a moment, unless the fd holder is stopped.
 * @param lock the lock file, open for writing.
 * @param ownPath the instance's own directory, with a slash at its end.
 * @throws TensordError `io-error` with the process that has it.
 */
export function takeLock(lock: number, ownPath: string, instance: string): void {
  const deadline = performance.now() + limits.lockPatienceMs;
  while (!tryLockFile(lock)) {
    const pid = readFileSync(`/proc/self/fd/${lock}`, "utf8").trim();
    if (!isGone(pid)) {
      throw new TensordError(
        "io-error",
        `Cannot use instance ${instance}: a server runs on it already, pid ${pid || "unknown"}`,
        { hint: `Stop that server, or choose another TENSORD_INSTANCE.`, pid },
      );
    }
    if (performance.now() >= deadline) throw lockOfNobody(pid, ownPath, instance);
    Bun.sleepSync(limits.lockPollMs);
  }
  ftruncateSync(lock, 0);
  try {
    writeSync(lock, `${process.pid}\n`, 0);
  } catch {
    // On a full tmpfs the pid has no page. The lock holds all the same; only the message to a second server is poorer.
  }
}

/** Whether no process has that id any more. */
function isGone(pid: string): boolean {
  if (!/^[1-9]\d*$/.test(pid)) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

function lockOfNobody(pid: string, ownPath: string, instance: string): TensordError {
  const holder = findListener(`${ownPath}${socketName}`);
  const what = `Cannot use instance ${instance}: its server, pid ${pid}, is gone, but not its lock`;
  if (holder === undefined) {
    return new TensordError("io-error", what, {
      hint: "A process that this server started, or sent its descriptor to, has it: see lslocks, and end that process.",
    });
  }
  return new TensordError("io-error", `${what}, which the fd holder, pid ${holder}, has not read yet`, {
    hint: `Is it stopped? kill -CONT ${holder} lets it go on; kill -KILL ${holder} ends it, and all that it keeps is lost.`,
    pid: String(holder),
  });
}

/** The process that listens on the socket at `path`. */
function findListener(path: string): number | undefined {
  try {
    const socket = connectForMessages(path);
    if (socket === undefined) return undefined;
    try {
      return readPeerCredentials(socket).pid;
    } finally {
      closeSync(socket);
    }
  } catch {
    return undefined;
  }
}
