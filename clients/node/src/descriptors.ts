/** What a process without a file descriptor is told: the runtimes' words for it differ, and lead elsewhere. */

import { closeSync, openSync } from "node:fs";
import { TensordError } from "./errors.ts";

/** Whether the system said that this process, or the machine, has no file descriptor left. */
export function isOutOfDescriptors(error: unknown): boolean {
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  return code === "EMFILE" || code === "ENFILE";
}

/** The failure to connect that is one of those. Bun calls it a refused connection, so another file is tried. */
export function findOutOfDescriptors(error: NodeJS.ErrnoException): unknown {
  if (isOutOfDescriptors(error)) return error;
  if (error.code !== "ECONNREFUSED") return undefined;
  try {
    closeSync(openSync("/dev/null", "r"));
    return undefined;
  } catch (failure) {
    return isOutOfDescriptors(failure) ? failure : undefined;
  }
}

/** @param cause the system's error, met when `action` was tried. */
export function outOfDescriptors(action: string, cause: unknown): TensordError {
  if ((cause as NodeJS.ErrnoException).code === "ENFILE") {
    return new TensordError(
      "out-of-descriptors",
      `Cannot ${action}: this machine has no file descriptor left (ENFILE)`,
      {
        hint: "raise fs.file-max (sysctl), or end what holds so many files",
        cause,
      },
    );
  }
  return new TensordError("out-of-descriptors", `Cannot ${action}: this process has no file descriptor left (EMFILE)`, {
    hint:
      "close files and sockets that it does not need, or raise the limit before it starts: ulimit -n, LimitNOFILE= in " +
      "systemd, --ulimit nofile= in Docker",
    cause,
  });
}
