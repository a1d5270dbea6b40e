/**
 * Holds one session: a WebSocket that lives as long as this process does, so that the server sees the process end, however
 * it ends. It connects again after a restart of the server, keeps no process alive, and tells what the process maps.
 */

import type WebSocket from "ws";
import { isPassing, isTensordError } from "../errors.ts";
import type { Endpoint } from "../http/endpoint.ts";
import { openWebSocket, readRefusal, toUnreachable } from "../http/web-socket.ts";
import { pause } from "../waiting.ts";
import { countMappings, countPassed, type Mappings, type ReportedMapping, toReports } from "./reports.ts";

const firstPauseMs = 20;
const longestPauseMs = 1_000;
/** What is mapped and let go of within this time is not told. It bounds what attaching in a loop costs. */
const gatherMs = 100;
const action = "hold the session";

export interface HoldOptions {
  /** The server ends the session so long after the last hold that it closed. */
  readonly ttlMs: number;
  /** What this process maps. */
  readonly mapped: () => Iterable<ReportedMapping>;
  /** What it maps no more, since it was last asked, and shall be told of even if it never was. */
  readonly takeEnded: () => readonly ReportedMapping[];
  /** It cannot be held any more, and why: `session-not-found` if the session is over. */
  readonly lost: (why: unknown) => void;
}

export class Hold {
  readonly #endpoint: Endpoint;
  readonly #path: string;
  readonly #options: HoldOptions;
  #socket: WebSocket | undefined;
  #isClosed = false;
  #telling: NodeJS.Timeout | undefined;
  /** What the server knows from this connection. */
  #told: ReadonlyMap<string, Mappings> = new Map();
  #toldMappings = new WeakSet<ReportedMapping>();
  #tellsMakers = false;

  constructor(endpoint: Endpoint, session: string, options: HoldOptions) {
    this.#endpoint = endpoint;
    this.#path = `/v1/sessions/${session}/hold`;
    this.#options = options;
  }

  /** Connects for the first time, and tries for so long. @throws TensordError `server-unavailable`, `session-not-found` */
  async open(patienceMs: number): Promise<void> {
    await this.#connect(performance.now() + patienceMs, true);
  }

  /** Whether the server tells makers from consumers, as it said when it took this hold. */
  get tellsMakers(): boolean {
    return this.#tellsMakers;
  }

  /** Tells the server at once what this process maps. */
  tell(): void {
    if (!this.#isClosed) this.#tell();
  }

  /** What this process maps has changed: soon the server is told what came of all changes until then. */
  changed(): void {
    if (!this.#isClosed) this.#telling ??= setTimeout(() => this.#tell(), gatherMs).unref();
  }

  /** Lets go; the server ends the session then. Safe to call twice. */
  close(): void {
    // The last word: a consumer that ends at once after it let go.
    this.tell();
    this.#isClosed = true;
    clearTimeout(this.#telling);
    this.#socket?.terminate();
  }

  /** @param isAwaited somebody waits for it, so that the process has something to do. */
  async #connect(giveUpAt: number, isAwaited: boolean): Promise<void> {
    const longestMs = Math.min(longestPauseMs, this.#options.ttlMs / 4);
    for (let pauseMs = firstPauseMs; !this.#isClosed; pauseMs = Math.min(2 * pauseMs, longestMs)) {
      try {
        return await this.#connectOnce(isAwaited);
      } catch (error) {
        // In the background this process may find a descriptor again, as a server comes back.
        const passes = isPassing(error) || (!isAwaited && isTensordError(error, "out-of-descriptors"));
        if (!passes || performance.now() + pauseMs > giveUpAt) throw error;
        await pause(pauseMs, { ref: isAwaited });
      }
    }
  }

  #connectOnce(isAwaited: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const { webSocket, connection } = openWebSocket(this.#endpoint, this.#path);
      if (!isAwaited) connection.unref();
      // One from before there was a maker's byte closes on a report that says who is one.
      webSocket.on("upgrade", ({ headers }) => {
        this.#tellsMakers = String(headers["tensord-reports"] ?? "").includes("maker");
      });
      webSocket.on("open", () => {
        connection.unref();
        webSocket.on("close", () => this.#lost());
        if (this.#isClosed) webSocket.terminate();
        this.#socket = webSocket;
        this.#told = new Map();
        this.#toldMappings = new WeakSet();
        this.#tell();
        resolve();
      });
      webSocket.on("error", (error) => reject(toUnreachable(action, error)));
      webSocket.on("unexpected-response", (_, response) => {
        void readRefusal(response, action).then((error) => {
          reject(error);
          webSocket.terminate();
        });
      });
    });
  }

  #tell(): void {
    clearTimeout(this.#telling);
    this.#telling = undefined;
    const socket = this.#socket;
    // The next connection begins with it.
    if (socket === undefined) return;
    // A server that does not read: more is told when this is out.
    if (socket.bufferedAmount > 0) return this.changed();
    const mapped = [...this.#options.mapped()];
    const passed = this.#options.takeEnded().filter((mapping) => !this.#toldMappings.has(mapping));
    const now = countMappings(mapped, this.#tellsMakers);
    const reports = toReports(this.#told, now, countPassed(passed, this.#tellsMakers));
    for (const report of reports) socket.send(JSON.stringify(report), ignore);
    for (const mapping of mapped) this.#toldMappings.add(mapping);
    this.#told = now;
  }

  #lost(): void {
    this.#socket = undefined;
    if (!this.#isClosed) this.#connect(Number.POSITIVE_INFINITY, false).catch(this.#options.lost);
  }
}

/** What is lost with its connection is told again on the next one. */
function ignore(): void {}
