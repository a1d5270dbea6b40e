/** An open file or socket that is held: until it is closed, and at the latest until its thread ends. */

import { closeSync } from "node:fs";
import { closeDescriptor } from "./libc-unix.ts";
import { closeAtThreadEnd } from "./thread-end.ts";

export class HeldFile {
  readonly fd: number;
  readonly #openedBy: "runtime" | "kernel";
  readonly #forget: () => void;
  #isClosed = false;

  /** Takes the descriptor over. `kernel`: it came with a message, or is a socket of `libc-unix.ts`; the runtime knows nothing of it. */
  constructor(fd: number, openedBy: "runtime" | "kernel" = "runtime") {
    this.fd = fd;
    this.#openedBy = openedBy;
    this.#forget = closeAtThreadEnd(fd, openedBy);
  }

  /** Lets go of it without closing it: it is the caller's from now on, beyond the end of the thread too. */
  take(): number {
    if (!this.#isClosed) this.#forget();
    this.#isClosed = true;
    return this.fd;
  }

  /** Safe to call twice. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // In this order: the number may be another file's as soon as it is free.
    this.#forget();
    if (this.#openedBy === "kernel") closeDescriptor(this.fd);
    else closeSync(this.fd);
  }
}
