/** The broker's listening socket and its file: made with the mode that it has to have, and removed while it is still ours. */

import { closeSync, lstatSync, unlinkSync } from "node:fs";
import { basename, dirname } from "node:path";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { connectForMessages, listenForMessages } from "../../memory/os/libc-unix.ts";
import { checkSocketPath } from "../../memory/storage/instance-directory.ts";

/**
 * Where the broker listens unless it is told: beside the socket of the API, under a name that no other server's has.
 * @returns undefined if that path is too long for a socket.
 */
export function toBrokerPath(socket: string): string | undefined {
  const path = basename(socket) === "http.sock" ? `${dirname(socket)}/broker.sock` : `${socket}.broker`;
  return Buffer.byteLength(path) <= limits.socketPathBytes ? path : undefined;
}

export class BrokerSocket implements Disposable {
  readonly fd: number;
  readonly path: string;
  readonly #ino: bigint;

  private constructor(fd: number, path: string) {
    this.fd = fd;
    this.path = path;
    this.#ino = lstatSync(path, { bigint: true }).ino;
  }

  /** Listens on a socket of mode 0660. A stale file is removed, a living one refused. @throws TensordError. */
  static open(path: string): BrokerSocket {
    checkSocketPath(path);
    removeStaleSocket(path);
    // The mode must be right from birth: between bind and chmod anybody could connect.
    const umask = process.umask(0o117);
    try {
      return new BrokerSocket(listenForMessages(path, limits.brokerBacklog), path);
    } catch (error) {
      throw cannotListen(path, error);
    } finally {
      process.umask(umask);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
    if (lstatSync(this.path, { bigint: true, throwIfNoEntry: false })?.ino === this.#ino) unlinkSync(this.path);
  }
}

function removeStaleSocket(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) {
    throw new TensordError("io-error", `Cannot listen on ${path}: a file that is no socket stands there`, {
      hint: "Remove it, or choose another TENSORD_BROKER_SOCKET.",
    });
  }
  if (isLiving(path)) {
    throw new TensordError("io-error", `Cannot listen on ${path}: another server listens there`, {
      hint: "Stop it, or choose another TENSORD_BROKER_SOCKET or TENSORD_INSTANCE.",
    });
  }
  unlinkSync(path);
}

/** Whether somebody listens there, be it in another way than we would. */
function isLiving(path: string): boolean {
  try {
    const fd = connectForMessages(path);
    if (fd === undefined) return false;
    closeSync(fd);
    return true;
  } catch {
    return true;
  }
}

function cannotListen(path: string, cause: unknown): TensordError {
  const { code = "unknown" } = cause as NodeJS.ErrnoException;
  return new TensordError(
    "io-error",
    `Cannot listen on ${path}: ${(cause as Error).message}`,
    { errno: code, hint: "Check TENSORD_BROKER_SOCKET, and that its directory is there and may be written to." },
    { cause },
  );
}
