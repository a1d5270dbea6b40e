/**
 * Holds one session: a connection that lives as long as this process does, so that the server sees the process end, however
 * it ends. It connects again after a restart of the server, keeps no process alive, and tells what the process maps.
 */

import { isPassing, isTensordError } from "../errors.ts";
import { pause } from "../waiting.ts";
import type { HoldConnection } from "./hold-connection.ts";
import { countMappings, countPassed, type Mappings, type ReportedMapping, toReports } from "./reports.ts";
import type { Ways } from "./ways.ts";

const firstPauseMs = 20;
const longestPauseMs = 1_000;
/** What is mapped and let go of within this time is not told. It bounds what attaching in a loop costs. */
const gatherMs = 100;

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
  readonly #ways: Ways;
  readonly #session: string;
  readonly #options: HoldOptions;
  /** By which the session was opened, until it is taken over. */
  #opened: HoldConnection | undefined;
  #connection: HoldConnection | undefined;
  #isClosed = false;
  #telling: NodeJS.Timeout | undefined;
  /** What the server knows from this connection. */
  #told: ReadonlyMap<string, Mappings> = new Map();
  #toldMappings = new WeakSet<ReportedMapping>();

  /** @param opened what holds the session already, if anything does. */
  constructor(ways: Ways, session: string, options: HoldOptions, opened?: HoldConnection | undefined) {
    this.#ways = ways;
    this.#session = session;
    this.#options = options;
    this.#opened = opened;
  }

  /** Connects for the first time, and tries for so long. @throws TensordError `server-unavailable`, `session-not-found` */
  async open(patienceMs: number): Promise<void> {
    await this.#connect(performance.now() + patienceMs, true);
  }

  /** Whether the server tells makers from consumers, as it said when it took this hold. */
  get tellsMakers(): boolean {
    return this.#connection?.tellsMakers ?? false;
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
    this.#opened?.close();
    this.#connection?.close();
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

  async #connectOnce(isAwaited: boolean): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    const connection = opened ?? (await this.#ways.connect(this.#session, isAwaited));
    if (this.#isClosed) return connection.close();
    this.#connection = connection;
    this.#told = new Map();
    this.#toldMappings = new WeakSet();
    void connection.closed.then(() => this.#lost());
    this.#tell();
  }

  #tell(): void {
    clearTimeout(this.#telling);
    this.#telling = undefined;
    const connection = this.#connection;
    // The next connection begins with it.
    if (connection === undefined) return;
    if (connection.hasUnsent) return this.changed();
    const mapped = [...this.#options.mapped()];
    const passed = this.#options.takeEnded().filter((mapping) => !this.#toldMappings.has(mapping));
    const { tellsMakers } = connection;
    const now = countMappings(mapped, tellsMakers);
    connection.send(toReports(this.#told, now, countPassed(passed, tellsMakers)));
    for (const mapping of mapped) this.#toldMappings.add(mapping);
    this.#told = now;
  }

  #lost(): void {
    this.#connection = undefined;
    if (!this.#isClosed) this.#connect(Number.POSITIVE_INFINITY, false).catch(this.#options.lost);
  }
}
