/**
 * Asks the server's broker for open files of regions (docs/protocol.md, "Attach by descriptor"): finds its socket, keeps one
 * connection for as long as it is used, and makes another after a restart of the server. What the files are is the caller's to check.
 */

import { existsSync } from "node:fs";
import { isRefusedForNow, isTensordError, TensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import type { Asked, DescriptorSource, Handed } from "../memory/descriptor-source.ts";
import { waitFor } from "../memory/libc-unix.ts";
import { pause } from "../waiting.ts";
import { type Answer, BrokerConnection, closeAll, Lost } from "./broker-connection.ts";
import { type BrokerPath, findBrokerPath } from "./broker-path.ts";
import { askForPath, toUnreachable } from "./dial.ts";

/** Who cannot do anything else meanwhile waits at most so long. */
const nowMs = 1_000;
/** An answer mostly is there by then (docs/adr/0030): sooner than by a turn of the event loop, and nobody misses so short a one. */
const briefMs = 2;
const answerMs = 10_000;
const firstPauseMs = 1;
const longestPauseMs = 16;
/** For a server that is away; as of requests over HTTP. */
const firstRetryMs = 20;
const longestRetryMs = 250;
/** A connection that nobody uses is closed: the server has room for so many. */
const idleMs = 4_000;

interface Question {
  readonly connection: BrokerConnection;
  readonly id: number;
}

export class Broker implements DescriptorSource {
  readonly #api: Api;
  #place: BrokerPath | undefined;
  /** As the server calls it, once it was asked. */
  #serversPath: string | undefined;
  #connection: BrokerConnection | undefined;
  #wasThere = false;
  #idle: NodeJS.Timeout | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** Connects when it is first asked. Closed with the client. */
  constructor(api: Api) {
    this.#api = api;
    this.#place = findBrokerPath(api.transport.endpoint);
    api.transport.closed.addEventListener("abort", () => this.#drop(), { once: true });
  }

  /** One after another: what waits to be read is bounded, on both sides. */
  attach(asked: Asked, signal?: AbortSignal | undefined): Promise<Handed> {
    const handed = this.#turn.then(() => this.#attach(asked, signal));
    this.#turn = handed.catch(() => undefined);
    return handed;
  }

  attachNow(asked: Asked): Handed {
    this.#api.transport.closed.throwIfAborted();
    const deadline = performance.now() + nowMs;
    for (;;) {
      const isUsed = this.#connection !== undefined;
      try {
        return this.#receiveNow(this.#ask(asked), deadline);
      } catch (error) {
        this.#afterFailure(error);
        if (!(error instanceof Lost)) throw error;
        // The server was started anew since.
        if (isUsed) continue;
        // So many wait to be taken that nobody else can.
        if (error.code !== "EAGAIN" || performance.now() >= deadline)
          throw toUnreachable(this.#place, this.#serversPath, error);
        waitFor(-1, "reading", firstPauseMs);
      }
    }
  }

  async #attach(asked: Asked, signal: AbortSignal | undefined): Promise<Handed> {
    const { closed, retryMs } = this.#api.transport;
    let giveUpAt = Number.POSITIVE_INFINITY;
    let isServerAsked = false;
    for (let pauseMs = firstRetryMs; ; pauseMs = Math.min(2 * pauseMs, longestRetryMs)) {
      closed.throwIfAborted();
      signal?.throwIfAborted();
      const isUsed = this.#connection !== undefined;
      try {
        return await this.#receive(this.#ask(asked), signal);
      } catch (error) {
        this.#afterFailure(error);
        closed.throwIfAborted();
        if (!isPassing(error)) throw error;
        if (isUsed) continue;
        if (!isServerAsked && error instanceof Lost) {
          // It may come back from a restart meanwhile, or listen elsewhere.
          isServerAsked = true;
          await this.#askServer(signal);
          continue;
        }
        const now = performance.now();
        giveUpAt = Math.min(giveUpAt, now + retryMs);
        const isAway = error instanceof Lost && !this.#wasThere && error.code !== "EAGAIN";
        if (isAway || now + pauseMs > giveUpAt)
          throw error instanceof Lost ? toUnreachable(this.#place, this.#serversPath, error) : error;
      }
      await pause(pauseMs, { signal });
    }
  }

  #ask({ region, access, lease }: Asked): Question {
    clearTimeout(this.#idle);
    if (this.#place === undefined) throw new Lost("where it is was not said");
    this.#connection ??= new BrokerConnection(this.#place.path, {
      token: this.#api.transport.endpoint.token?.read(),
    });
    this.#wasThere = true;
    const connection = this.#connection;
    return { connection, id: connection.send("attach", { region, access, lease }) };
  }

  #receiveNow({ connection, id }: Question, deadline: number): Handed {
    for (;;) {
      const answer = connection.take(id);
      if (answer !== undefined) return this.#handed(connection, answer);
      const leftMs = Math.ceil(deadline - performance.now());
      if (leftMs <= 0) throw this.#late(nowMs);
      connection.wait(leftMs);
    }
  }

  async #receive({ connection, id }: Question, signal: AbortSignal | undefined): Promise<Handed> {
    const deadline = performance.now() + answerMs;
    for (let pauseMs = 0; ; pauseMs = Math.min(Math.max(2 * pauseMs, firstPauseMs), longestPauseMs)) {
      if (pauseMs > 0) await pause(pauseMs, { signal });
      else connection.wait(briefMs);
      const answer = connection.take(id);
      if (answer !== undefined) return this.#handed(connection, answer);
      if (performance.now() > deadline) throw this.#late(answerMs);
    }
  }

  #handed({ instance }: BrokerConnection, { members, files }: Answer): Handed {
    this.#restSoon();
    // As many names as files, or it was no answer.
    const names = (members.fds ?? []) as readonly unknown[];
    const [file, handle] = ["region", "handle"].map((name) => files[names.indexOf(name)]);
    closeAll(files.filter((each) => each !== file && each !== handle));
    if (file !== undefined) return { file, handle, isLeased: members.leased === true, instance };
    handle?.close();
    throw new TensordError("server-fault", "Cannot map a region: the broker sent no descriptor");
  }

  /** A refusal leaves the connection as it is; after anything else an answer may still come, with a descriptor that nobody wants. */
  #afterFailure(error: unknown): void {
    const isAnswer = isTensordError(error) && error.status !== undefined;
    if (!isAnswer || this.#connection?.isClosed === true) this.#drop();
    else this.#restSoon();
  }

  #restSoon(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#drop(), idleMs).unref();
  }

  #drop(): void {
    clearTimeout(this.#idle);
    this.#connection?.close();
    this.#connection = undefined;
  }

  /** @throws TensordError `feature-unavailable` of a server that has none */
  async #askServer(signal: AbortSignal | undefined): Promise<void> {
    this.#serversPath = await askForPath(this.#api, signal);
    const isSaid = this.#place?.origin === "TENSORD_BROKER_SOCKET";
    // Of a server elsewhere the path says nothing here.
    if (!isSaid && existsSync(this.#serversPath))
      this.#place = { path: this.#serversPath, origin: "the server's capabilities" };
  }

  #late(waitedMs: number): TensordError {
    return new TensordError(
      "server-unavailable",
      `The broker on ${this.#place?.path} did not answer within ${waitedMs} ms`,
      { hint: "the server is busy, or stopped: try again" },
    );
  }
}

/** Nobody was there, or the server refuses for the moment. */
function isPassing(error: unknown): boolean {
  return error instanceof Lost || (isTensordError(error) && isRefusedForNow(error.status, error.code));
}
