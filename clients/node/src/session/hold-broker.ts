/**
 * The connection to the broker that holds a session, in the WebSocket's place. It attaches nothing: that would be reported twice. Neither runtime
 * waits for such a socket, so it is looked at by a timer, which keeps no process alive.
 */

import { type BrokerConnection, Lost } from "../broker/broker-connection.ts";
import { TensordError } from "../errors.ts";
import { fromWire, isObject, type SessionDescriptor, type WireObject } from "../http/wire.ts";
import { pause } from "../waiting.ts";
import type { HoldConnection } from "./hold-connection.ts";
import type { Report } from "./reports.ts";

const answerMs = 10_000;
const longestPauseMs = 16;
/** The end of the server is seen so much later at most: far below the shortest TTL. */
const lookMs = 100;
/** Of one message. */
const maxReports = 256;

/** What hello brought. */
export interface Greeted {
  readonly session: SessionDescriptor;
  /** What to send over HTTP until the session ends, for who has no token. */
  readonly accessToken: string | undefined;
}

/**
 * The answer to a hello that asks for a session to be held. The connection is closed if there is none.
 * @throws TensordError what the server says, `server-unavailable`
 */
export async function awaitGreeting(connection: BrokerConnection, isAwaited: boolean): Promise<Greeted> {
  const deadline = performance.now() + answerMs;
  try {
    for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      const greeting = connection.greeting();
      if (greeting !== undefined) return toGreeted(greeting);
      if (performance.now() > deadline) throw new Lost(`it did not answer within ${answerMs} ms`);
      await pause(pauseMs, { ref: isAwaited });
    }
  } catch (error) {
    connection.close();
    if (!(error instanceof Lost)) throw error;
    throw new TensordError("server-unavailable", `Cannot hold a session at the broker: ${error.message}`, {
      hint: "is the server running?",
      cause: error,
    });
  }
}

function toGreeted({ session, access_token: accessToken }: WireObject): Greeted {
  if (!isObject(session))
    throw new TensordError("server-fault", "Cannot hold a session: the broker's answer names none");
  return {
    session: fromWire(session) as SessionDescriptor,
    accessToken: typeof accessToken === "string" ? accessToken : undefined,
  };
}

export class BrokerHold implements HoldConnection {
  /** Every broker does. */
  readonly tellsMakers = true;
  readonly closed: Promise<void>;
  readonly #connection: BrokerConnection;
  readonly #ended: () => void;
  readonly #timer: NodeJS.Timeout;
  #unsent: readonly Report[] = [];

  /** @param connection that was greeted, and is its own from now on. */
  constructor(connection: BrokerConnection) {
    const { promise, resolve } = withResolvers();
    this.closed = promise;
    this.#ended = resolve;
    this.#connection = connection;
    this.#timer = setInterval(() => this.#look(), lookMs).unref();
  }

  get hasUnsent(): boolean {
    return this.#unsent.length > 0;
  }

  send(reports: readonly Report[]): void {
    this.#unsent = [...this.#unsent, ...reports];
    this.#look();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#connection.close();
    this.#ended();
  }

  /** Answers say nothing that is wanted here: what is refused passes, as when the server goes. Unread they would end it. */
  #look(): void {
    try {
      this.#connection.drain();
      while (this.#unsent.length > 0) {
        const reports = this.#unsent.slice(0, maxReports);
        if (this.#connection.trySend("report", { reports }) === undefined) return;
        this.#unsent = this.#unsent.slice(reports.length);
      }
    } catch {
      this.close();
    }
  }
}

/** `Promise.withResolvers`, which Node 20 lacks. */
function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((resolved) => {
    resolve = resolved;
  });
  return { promise, resolve };
}
