/** A Unix socket between a client and a server, which can lose answers and change them. */

import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface ProxyOptions {
  /** Changes what the server says; the result must have as many bytes. */
  readonly rewrite?: (text: string) => string;
}

export class SocketProxy implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "tensord-proxy-"));
  readonly #server: Server;
  readonly #listening: Promise<void>;
  #losses = 0;

  constructor(upstream: string, { rewrite = (text) => text }: ProxyOptions = {}) {
    this.#server = createServer((near) => {
      const far = connect(upstream);
      const end = () => {
        near.destroy();
        far.destroy();
      };
      near.on("data", (chunk) => far.write(chunk));
      far.on("data", (chunk) => {
        if (this.#losses === 0) near.write(rewrite(chunk.toString("latin1")), "latin1");
        else {
          this.#losses -= 1;
          end();
        }
      });
      for (const side of [near, far]) side.on("error", end).on("close", end);
    });
    this.#listening = new Promise((resolve) => this.#server.listen(join(this.#directory, "socket"), resolve));
  }

  get url(): string {
    return `unix://${this.#directory}/socket`;
  }

  async listening(): Promise<this> {
    await this.#listening;
    return this;
  }

  /** The server does what the next requests ask, and nobody hears of it. */
  loseAnswers(count: number): void {
    this.#losses = count;
  }

  [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.#directory, { recursive: true });
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
    });
  }
}
