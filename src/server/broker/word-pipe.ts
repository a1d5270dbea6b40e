/** The pipe by which the loop tells the broker's Worker what became of things: it never waits for room in it. */

import { closeSync, readSync, writeSync } from "node:fs";
import { createPipe } from "../../memory/os/libc-poll.ts";
import { toBytes, type Word } from "./poll-protocol.ts";
import type { Ticket } from "./tickets.ts";

export class WordPipe implements Disposable {
  readonly #pipe = createPipe();
  /** What it had no room for. */
  #unsent: Buffer = Buffer.alloc(0);

  /** The Worker's end. */
  get readEnd(): number {
    return this.#pipe.readEnd;
  }

  tell(word: Exclude<Word, "ticket">, slot: number): void {
    this.#write(toBytes(word, slot));
  }

  tellTicket(ticket: Ticket): void {
    const text = Buffer.from(JSON.stringify(ticket));
    this.#write(Buffer.concat([toBytes("ticket", text.length), text]));
  }

  #write(bytes: Buffer): void {
    this.#unsent = this.#unsent.length === 0 ? bytes : Buffer.concat([this.#unsent, bytes]);
    this.#flush();
  }

  #flush(): void {
    // Whoever waits to send the rest may find it sent, and the pipe closed.
    if (this.#unsent.length === 0) return;
    try {
      this.#unsent = this.#unsent.subarray(writeSync(this.#pipe.writeEnd, this.#unsent));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
    if (this.#unsent.length > 0) setTimeout(() => this.#flush(), 1);
  }

  /** Nothing more is sent of what was told. */
  drop(): void {
    this.#unsent = Buffer.alloc(0);
  }

  /** Takes out what a dead Worker did not read: it is about slots that the next one does not know. */
  empty(): void {
    const bytes = Buffer.alloc(4096);
    try {
      while (readSync(this.#pipe.readEnd, bytes) > 0);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }

  [Symbol.dispose](): void {
    this.drop();
    closeSync(this.#pipe.readEnd);
    closeSync(this.#pipe.writeEnd);
  }
}
