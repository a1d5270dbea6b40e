/**
 * A request's body on its way into a file, written by the runtime. It cannot be told to stop, but it writes where its open
 * file description stands, and that can be moved to where nothing can be written.
 */

import { closeSync, constants } from "node:fs";
import { raiseLimit } from "../os/descriptors.ts";
import { openFile } from "../os/files.ts";
import { readPosition, seek, trySeek } from "../os/libc.ts";

export class Inflow implements Disposable {
  /** Of a description of its own: the runtime keeps a duplicate for as long as the body lasts, which must hold no lock. */
  readonly #fd: number;
  readonly #byteOffset: number;
  /** Resolves when all of the body is written. @throws what the system says of a write, or the body when it breaks off. */
  readonly ended: Promise<void>;

  /** @param translate makes a failure of the table of what the system says. */
  constructor(
    path: string,
    body: ReadableStream<Uint8Array>,
    byteOffset: number,
    translate: (error: unknown) => unknown,
  ) {
    this.#fd = openFile(path, constants.O_WRONLY, undefined, "long");
    this.#byteOffset = byteOffset;
    try {
      seek(this.#fd, byteOffset);
      this.ended = this.#begin(body).then(
        () => {},
        (error) => {
          throw translate(error);
        },
      );
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** The runtime duplicates the descriptor in this turn. */
  #begin(body: ReadableStream<Uint8Array>): Promise<number> {
    using _ = raiseLimit("long");
    return Bun.write(Bun.file(this.#fd), new Response(body));
  }

  /** How many bytes have been written. */
  get byteSize(): number {
    return readPosition(this.#fd) - this.#byteOffset;
  }

  /** Ends it: what still comes of the body is written nowhere. */
  [Symbol.dispose](): void {
    seekToLimit(this.#fd);
    closeSync(this.#fd);
  }
}

/** What off_t holds, and tmpfs takes. */
const largestOffset = 2n ** 63n - 1n;

/** Moves to the largest offset that the file system takes, where nothing can be written. Others take less, and tell none. */
function seekToLimit(fd: number): void {
  if (trySeek(fd, largestOffset)) return;
  let limit = 0n;
  for (let bit = 1n << 62n; bit > 0n; bit >>= 1n) {
    if (trySeek(fd, limit | bit)) limit |= bit;
  }
}
