/** An open file that is held for its locks: until it is closed, and at the latest until its thread ends. */

import { closeSync } from "node:fs";
import { closeAtThreadEnd } from "./thread-end.ts";

export class HeldFile {
  readonly fd: number;
  readonly #forget: () => void;

  /** Takes the descriptor over. */
  constructor(fd: number) {
    this.fd = fd;
    this.#forget = closeAtThreadEnd(fd);
  }

  close(): void {
    // In this order: the number may be another file's as soon as it is free.
    this.#forget();
    closeSync(this.fd);
  }
}
