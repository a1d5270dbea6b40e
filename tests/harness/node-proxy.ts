/** A Unix socket between a client and a server, which can lose answers, change them, and cut them off anywhere. */

import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface ProxyOptions {
  /** Changes what the server says; the result must have as many bytes. */
  readonly rewrite?: (text: string) => string;
  /** What is answered in the server's place to a request that begins so, if anything; the connection ends with it. */
  readonly refuse?: (request: string) => string | undefined;
}

const isRequest = /^[A-Z]+ \S+ HTTP\/1\.1\r\n/;

export class SocketProxy implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "tensord-proxy-"));
  readonly #server: Server;
  readonly #listening: Promise<void>;
  #losses = 0;
  #pickBytes: (() => number) | undefined;
  #cuts = 0;
  #isMute = false;
  #askedBytes = 0;

  constructor(upstream: string, { rewrite = (text) => text, refuse = () => undefined }: ProxyOptions = {}) {
    this.#server = createServer((near) => {
      const far = connect(upstream);
      const end = () => {
        near.destroy();
        far.destroy();
      };
      let leftBytes: number | undefined;
      near.on("data", (chunk) => {
        this.#askedBytes += chunk.length;
        const text = chunk.toString("latin1");
        const refusal = isRequest.test(text) ? refuse(text) : undefined;
        if (refusal === undefined) far.write(chunk);
        else near.end(refusal, "latin1");
      });
      far.on("data", (chunk) => {
        if (this.#isMute) return;
        if (this.#losses > 0) {
          this.#losses -= 1;
          end();
          return;
        }
        leftBytes ??= this.#pickBytes?.() ?? Number.POSITIVE_INFINITY;
        const text = rewrite(chunk.toString("latin1"));
        if (text.length < leftBytes) near.write(text, "latin1");
        else this.#cut(near, far, text.slice(0, leftBytes));
        leftBytes = this.#pickBytes === undefined ? undefined : leftBytes - text.length;
      });
      for (const side of [near, far]) side.on("error", end).on("close", end);
    });
    this.#listening = new Promise((resolve) => this.#server.listen(join(this.#directory, "socket"), resolve));
  }

  get url(): string {
    return `unix://${this.#directory}/socket`;
  }

  /** How many connections were cut. */
  get cuts(): number {
    return this.#cuts;
  }

  /** What the clients have said so far. */
  get askedBytes(): number {
    return this.#askedBytes;
  }

  async listening(): Promise<this> {
    await this.#listening;
    return this;
  }

  /** The server does what the next requests ask, and nobody hears of it. */
  loseAnswers(count: number): void {
    this.#losses = count;
  }

  /** Whether the server is heard: what it says while it is mute nobody ever hears, and no connection ends. */
  mute(isMute: boolean): void {
    this.#isMute = isMute;
  }

  /** From now on each connection ends after so many bytes of the server's, in the middle of whatever it says then. */
  cutAfter(pickBytes: () => number): void {
    this.#pickBytes = pickBytes;
  }

  /** The client gets what comes before the cut, and then the end. */
  #cut(near: Socket, far: Socket, text: string): void {
    this.#cuts += 1;
    far.removeAllListeners("data").removeAllListeners("close").destroy();
    near.end(text, "latin1", () => near.destroy());
  }

  [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.#directory, { recursive: true });
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
    });
  }
}
