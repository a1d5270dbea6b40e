/**
 * Listeners that can rest. The runtime accepts all that there is, from whichever listener comes first, and asks without a pause
 * while there is no descriptor for it; so what its poll waits for is changed beneath it, and changed back.
 */

import { readlinkSync } from "node:fs";
import { listDirectory, readTextIfThere } from "../memory/os/files.ts";
import { isListening } from "../memory/os/libc.ts";
import { readOwn, setPollEvents } from "../memory/os/libc-sockets.ts";

/** A listening socket's entry in the runtime's poll. */
export class Listener {
  readonly #epoll: number;
  readonly #fd: number;
  readonly #events: number;
  readonly #data: bigint;
  /** Of a TCP listener. */
  readonly port: number | undefined;
  #isResting = false;

  constructor(epoll: number, fd: number, events: number, data: bigint) {
    const own = readOwn(fd);
    this.port = own?.kind === "tcp" ? own.port : undefined;
    this.#epoll = epoll;
    this.#fd = fd;
    this.#events = events;
    this.#data = data;
  }

  /** Takes no connection until it is woken. They wait in the kernel's queue. */
  rest(): void {
    if (!this.#isResting) this.#set(0);
    this.#isResting = true;
  }

  wake(): void {
    if (this.#isResting) this.#set(this.#events);
    this.#isResting = false;
  }

  #set(events: number): void {
    // Closed, its number may be that of anything.
    if (isListening(this.#fd)) setPollEvents(this.#epoll, this.#fd, events, this.#data);
  }
}

/** Every listener of this process. The runtime tells neither their descriptors nor its poll's; the kernel does. */
export function findListeners(): Listener[] {
  const fds = listDirectory("/proc/self/fd").map(Number);
  const listening = new Set(fds.filter(isListening));
  return fds.filter(isPoll).flatMap((epoll) =>
    parsePoll(readTextIfThere(`/proc/self/fdinfo/${epoll}`) ?? "")
      .filter(({ fd }) => listening.has(fd))
      .map(({ fd, events, data }) => new Listener(epoll, fd, events, data)),
  );
}

function isPoll(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[eventpoll]";
  } catch {
    // It was that of the list itself.
    return false;
  }
}

export interface PollEntry {
  readonly fd: number;
  readonly events: number;
  readonly data: bigint;
}

/** Lines `tfd: … events: … data: …` of a poll's fdinfo, the last two in hexadecimal (proc_pid_fdinfo(5)). */
export function parsePoll(text: string): PollEntry[] {
  return [...text.matchAll(/^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)\s+data:\s*([0-9a-f]+)/gm)].map(
    ([, fd = "", events = "", data = ""]) => ({
      fd: Number(fd),
      events: Number.parseInt(events, 16),
      data: BigInt(`0x${data}`),
    }),
  );
}
