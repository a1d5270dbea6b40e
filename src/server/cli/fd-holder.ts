/** The hidden command that is the fd holder's process: what it was started with, and then its loop. */

import { statSync } from "node:fs";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { readDescriptorLimit, setDescriptorLimit } from "../../memory/os/libc.ts";
import { listenAgain } from "../../memory/os/libc-unix.ts";
import { holdDescriptors, type LockFile } from "../../memory/storage/fd-holder/hold.ts";
import { listenerDescriptor } from "../../memory/storage/fd-holder/start-holder.ts";

/**
 * @param args of a server `--lock <dev>:<ino>`, and for people who look at processes `--instance <name>`; of a service manager, which
 * listens for it, `--lock-file <path>`. Returns when it has ended.
 */
export function runFdHolder(args: readonly string[]): void {
  const lock = toLock(toOption(args, "--lock"), toOption(args, "--lock-file"));
  if (lock === undefined) {
    throw new TensordError(
      "validation-failed",
      "Cannot run an fd holder: it has neither a server's socket nor a service manager's",
      {
        hint: "A server starts it by itself. As a unit of its own it has deploy/systemd/tensord-fd-holder.socket.",
      },
    );
  }
  // From now on SO_PEERCRED tells this process, and not the server that made the socket.
  listenAgain(listenerDescriptor, limits.holderConnections);
  const { hard } = readDescriptorLimit();
  setDescriptorLimit({ soft: hard, hard });
  holdDescriptors({
    listener: listenerDescriptor,
    lock,
    capacity: Math.max(0, Number(hard) - limits.holderOwnDescriptors),
  });
}

function toOption(args: readonly string[], name: string): string | undefined {
  const place = args.indexOf(name);
  return place === -1 ? undefined : args[place + 1];
}

/** A server says which file it has locked. A service manager knows no more than where that lies, and it may be another one each time. */
function toLock(said: string | undefined, path: string | undefined): (() => LockFile | undefined) | undefined {
  const [, dev, ino] = /^(\d+):(\d+)$/.exec(said ?? "") ?? [];
  if (dev !== undefined && ino !== undefined) return () => ({ dev: BigInt(dev), ino: BigInt(ino) });
  // Of several sockets only the first would be served (sd_listen_fds(3)).
  if (path === undefined || process.env.LISTEN_PID !== String(process.pid) || process.env.LISTEN_FDS !== "1")
    return undefined;
  return () => statSync(path, { bigint: true, throwIfNoEntry: false });
}
