/**
 * By which way a session is opened and held: over HTTP and a WebSocket, or at the broker alone. At the broker where that is asked for;
 * where no WebSocket comes through, or the package for it is not there; and where the server knows this process by its uid alone, which
 * only the broker sees. There a session comes with a token for HTTP.
 */

import type { BrokerConnection } from "../broker/broker-connection.ts";
import { dialBroker } from "../broker/dial.ts";
import { isPassing, isTensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import { toWire, type WireObject } from "../http/wire.ts";
import type { HoldBy } from "../options.ts";
import { pause } from "../waiting.ts";
import { awaitGreeting, BrokerHold, type Greeted } from "./hold-broker.ts";
import type { HoldConnection } from "./hold-connection.ts";
import { isUnfit, openHoldWebSocket } from "./hold-web-socket.ts";

const firstPauseMs = 20;
const longestPauseMs = 250;

/** A session that was opened, and the connection that holds it already, if one does. */
export interface Opened {
  readonly id: string;
  readonly ttlMs: number;
  readonly connection: HoldConnection | undefined;
}

type NewSession = Parameters<Api["openSession"]>[0];

export class Ways {
  readonly #api: Api;
  readonly #by: HoldBy | undefined;
  #isAtBroker: boolean;
  /** Where the broker was found. */
  #path: string | undefined;

  constructor(api: Api, by: HoldBy | undefined) {
    this.#api = api;
    this.#by = by;
    this.#isAtBroker = by === "broker";
  }

  get isAtBroker(): boolean {
    return this.#isAtBroker;
  }

  /** Opens a session. @throws TensordError what a request throws, and what the broker says */
  async open(request: NewSession): Promise<Opened> {
    if (this.#isAtBroker) return await this.#openAtBroker(request);
    try {
      const { id, ttlMs } = await this.#api.openSession(request);
      return { id, ttlMs, connection: undefined };
    } catch (error) {
      if (!this.#mayBeKnownByUid(error)) throw error;
      // Where the broker does not know it either, the first refusal says what to do.
      const opened = await this.#openAtBroker(request).catch(() => Promise.reject(error));
      this.#isAtBroker = true;
      return opened;
    }
  }

  /** Holds the session of that id. @param isAwaited somebody waits for it. @throws TensordError what the server says, `server-unavailable` */
  async connect(session: string, isAwaited: boolean): Promise<HoldConnection> {
    if (!this.#isAtBroker) {
      try {
        return await openHoldWebSocket(this.#api.transport.endpoint, session, isAwaited);
      } catch (error) {
        if (this.#by !== undefined || !(isUnfit(error) || this.#mayBeKnownByUid(error))) throw error;
        this.#isAtBroker = true;
      }
    }
    try {
      return (await this.#greet({ session }, isAwaited)).hold;
    } catch (error) {
      // Another server may be there the next time, to which a WebSocket leads. Whom the broker knows has no other way.
      const isElsewhere = isTensordError(error, "wrong-namespace") || isTensordError(error, "feature-unavailable");
      if (isElsewhere && this.#by === undefined && this.#api.transport.issuedToken === undefined)
        this.#isAtBroker = false;
      throw error;
    }
  }

  #mayBeKnownByUid(error: unknown): boolean {
    const isNameless = this.#api.transport.endpoint.token === undefined;
    return this.#by === undefined && isNameless && isTensordError(error, "unauthorized");
  }

  async #openAtBroker(request: NewSession): Promise<Opened> {
    const { closed, wasThere, retryMs } = this.#api.transport;
    const giveUpAt = performance.now() + (wasThere ? retryMs : 0);
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      closed.throwIfAborted();
      try {
        const { hold, session } = await this.#greet({ session: toWire(request) }, true);
        return { id: session.id, ttlMs: session.ttlMs, connection: hold };
      } catch (error) {
        if (!isPassing(error) || performance.now() + pauseMs > giveUpAt) throw error;
      }
      await pause(pauseMs);
    }
  }

  async #greet(hello: WireObject, isAwaited: boolean): Promise<Greeted & { readonly hold: HoldConnection }> {
    const connection: BrokerConnection = await dialBroker(this.#api, hello, this.#path);
    const greeted = await awaitGreeting(connection, isAwaited);
    this.#path = connection.path;
    if (greeted.accessToken !== undefined) this.#api.transport.issuedToken = greeted.accessToken;
    return { ...greeted, hold: new BrokerHold(connection) };
  }
}
