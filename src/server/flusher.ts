/** When lines of the log leave: a moment after they were written, together, and never while none are, so that nothing wakes an idle server. */

/** What buffers lines, as pino's destination does. Its flush does nothing while a write is under way. */
export interface LineBuffer {
  write(line: string): unknown;
  flush(): void;
  on(event: "write", listener: (bytes: number) => void): unknown;
  on(event: "drop", listener: (line: string) => void): unknown;
}

export class Flusher {
  readonly #lines: LineBuffer;
  readonly #delayMs: number;
  #waitingBytes = 0;
  #timer: Timer | undefined;
  #isStopped = false;

  /** @param delayMs how long a line may wait for others to leave with it. */
  constructor(lines: LineBuffer, delayMs: number) {
    this.#lines = lines;
    this.#delayMs = delayMs;
    lines.on("write", (bytes) => {
      this.#waitingBytes -= bytes;
    });
    lines.on("drop", (line) => {
      this.#waitingBytes -= Buffer.byteLength(line);
    });
  }

  write(line: string): void {
    this.#waitingBytes += Buffer.byteLength(line);
    this.#lines.write(line);
    if (!this.#isStopped) this.#timer ??= this.#later();
  }

  /** The timer, which keeps no process alive. */
  #later(): Timer {
    return setTimeout(() => this.#flush(), this.#delayMs).unref();
  }

  #flush(): void {
    this.#timer = undefined;
    if (this.#waitingBytes <= 0) return;
    this.#lines.flush();
    this.#timer = this.#later();
  }

  /** Flushes no more: what still waits is for whoever closes the buffer. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }
}
