/** The hidden command that is the fd holder's process: what it was started with, and then its loop. */

import { limits } from "../../memory/limits.ts";
import { readDescriptorLimit, setDescriptorLimit } from "../../memory/os/libc.ts";
import { listenAgain } from "../../memory/os/libc-unix.ts";
import { holdDescriptors } from "../../memory/storage/fd-holder/hold.ts";
import { listenerDescriptor } from "../../memory/storage/fd-holder/start-holder.ts";

/** @param args `--lock <dev>:<ino>`, and for people who look at processes `--instance <name>`. Returns when it has ended. */
export function runFdHolder(args: readonly string[]): void {
  const [, dev, ino] = /^(\d+):(\d+)$/.exec(args[args.indexOf("--lock") + 1] ?? "") ?? [];
  if (dev === undefined || ino === undefined) {
    throw new Error("Cannot run an fd holder: a server starts it, with its socket and its lock");
  }
  // From now on SO_PEERCRED tells this process, and not the server that made the socket.
  listenAgain(listenerDescriptor, limits.holderConnections);
  const { hard } = readDescriptorLimit();
  setDescriptorLimit({ soft: hard, hard });
  holdDescriptors({
    listener: listenerDescriptor,
    lock: { dev: BigInt(dev), ino: BigInt(ino) },
    capacity: Math.max(0, Number(hard) - limits.holderOwnDescriptors),
  });
}
