/**
 * The server's side of the fd holder: finds the one that an earlier server left, starts one when the first descriptor is to be
 * kept, and where it ends, starts another and gives it everything again.
 */

import { closeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { TensordError } from "../../error.ts";
import { limits } from "../../limits.ts";
import type { FdHolder, Keepable } from "./fd-holder.ts";
import {
  type Answered,
  findHolder,
  type HolderConnection,
  HolderGone,
  HolderRefusal,
  notServed,
} from "./holder-connection.ts";
import type { HolderStatus, Question } from "./protocol.ts";
import { type HolderPlace, startHolder } from "./start-holder.ts";
import type { OnHolderStep } from "./steps.ts";

export interface HeldOptions {
  readonly place: HolderPlace;
  /** How long the fd holder keeps everything without a server; undefined for who only looks, for whom no time runs anew. */
  readonly ttlMs: number | undefined;
  readonly onWarning: (message: string, error: unknown) => void;
  readonly onStep?: OnHolderStep | undefined;
  /** Told of the connection's descriptor, and when it is closed. */
  readonly onOpen?: ((fd: number) => void) | undefined;
  readonly onClose?: ((fd: number) => void) | undefined;
}

export class HeldDescriptors implements FdHolder, Disposable {
  readonly #options: HeldOptions;
  /** What is kept, or about to be, and what a new fd holder is given for it. */
  readonly #kept = new Map<string, Keepable>();
  #connection: Promise<HolderConnection> | undefined;
  #open: HolderConnection | undefined;
  #retryMs = 0;
  readonly #disposing = new AbortController();

  constructor(options: HeldOptions) {
    this.#options = options;
  }

  async keep(token: string, what: Keepable): Promise<void> {
    this.#kept.set(token, what);
    try {
      await withDescriptor(what, (fd) => this.#ask({ op: "keep", token }, () => [fd]));
    } catch (error) {
      this.#kept.delete(token);
      throw toFailure(error);
    }
    this.#options.onStep?.("holder.kept");
  }

  async give(token: string): Promise<number> {
    try {
      const { fds } = await this.#ask({ op: "give", token });
      const [fd] = fds;
      if (fd === undefined) throw new HolderRefusal("out-of-descriptors");
      this.#kept.set(token, fd);
      return fd;
    } catch (error) {
      throw toFailure(error);
    }
  }

  async drop(token: string): Promise<void> {
    this.#kept.delete(token);
    try {
      const connection = await this.#find();
      await connection?.ask({ op: "drop", token });
    } catch (error) {
      // It ended, and with it every copy. One that is stopped does it when it goes on, and its copy is memory until then.
      if (!(error instanceof HolderGone)) {
        this.#options.onWarning(`The fd holder has not let go of a region's memory (${token})`, error);
      }
    }
    this.#options.onStep?.("holder.dropped");
  }

  async list(): Promise<readonly string[]> {
    try {
      const connection = await this.#find();
      return connection === undefined ? [] : await listTokens(connection);
    } catch (error) {
      if (error instanceof HolderGone) return [];
      throw toFailure(error);
    }
  }

  /** How many are to be kept. */
  get count(): number {
    return this.#kept.size;
  }

  /** How the fd holder is, now; undefined if there is none. */
  async status(): Promise<HolderStatus | undefined> {
    try {
      const connection = await this.#find();
      if (connection === undefined) return undefined;
      const { v, pid } = connection.status;
      const { descriptors = 0, age_ms = 0 } = await connection.ask({ op: "hello", v });
      return { v, pid, descriptors, age_ms };
    } catch (error) {
      if (error instanceof HolderGone) return undefined;
      throw toFailure(error);
    }
  }

  /** Has the fd holder, if there is one, free everything and end. Resolves once it did. */
  async end(): Promise<void> {
    try {
      const connection = await this.#find();
      this.#kept.clear();
      await connection?.ask({ op: "end" });
      await connection?.ended;
    } catch (error) {
      if (!(error instanceof HolderGone)) throw toFailure(error);
    }
  }

  /** Leaves the fd holder alone, with all that it keeps. */
  [Symbol.dispose](): void {
    this.#disposing.abort();
    this.#open?.[Symbol.dispose]();
  }

  /** Asks the fd holder, or a new one if it ends meanwhile, which has everything that is kept by then. */
  async #ask(question: Question, fds?: () => readonly number[]): Promise<Answered> {
    for (let attempt = 1; ; attempt++) {
      const connection = await this.#connect();
      try {
        const answer = await (fds === undefined ? connection.ask(question) : connection.ask(question, fds));
        if (answer !== undefined) return answer;
      } catch (error) {
        if (!(error instanceof HolderGone) || attempt === 3) throw error;
      }
    }
  }

  /** The connection, if there is an fd holder. Starts none, unless something is kept or a service manager does. */
  async #find(): Promise<HolderConnection | undefined> {
    if (this.#connection !== undefined || this.#kept.size > 0) return await this.#connect();
    const found = await findHolder(this.#options.place);
    if (found === undefined) return undefined;
    // Somebody may have asked meanwhile, too.
    if (this.#connection !== undefined) {
      found[Symbol.dispose]();
      return await this.#connection;
    }
    return await this.#connect(found);
  }

  #connect(found?: HolderConnection): Promise<HolderConnection> {
    if (this.#disposing.signal.aborted) return Promise.reject(new HolderGone());
    this.#connection ??= this.#own(found).catch((error: unknown) => {
      this.#connection = undefined;
      throw error;
    });
    return this.#connection;
  }

  /** Shows the lock to the fd holder that there is, or to a new one, and gives it what it lacks. */
  async #own(found?: HolderConnection): Promise<HolderConnection> {
    const connection = (await this.#ownFound(found)) ?? (await this.#ownNew());
    this.#open = connection;
    if (this.#disposing.signal.aborted) connection[Symbol.dispose]();
    else await this.#giveAgain(connection);
    this.#options.onOpen?.(connection.socket);
    void connection.ended.then(() => {
      this.#options.onClose?.(connection.socket);
      return this.#replace(connection);
    });
    return connection;
  }

  /** What is kept is lost with an fd holder that is taken for gone, so that is what nobody listening says, and nothing else. */
  async #ownFound(found?: HolderConnection): Promise<HolderConnection | undefined> {
    const { place } = this.#options;
    for (let attempt = 1; attempt <= limits.holderAttempts; attempt++) {
      const there = (attempt === 1 ? found : undefined) ?? (await findHolder(place));
      if (there === undefined) return undefined;
      const outcome = await this.#tryOwn(there);
      if (outcome === "owned") return there;
      there[Symbol.dispose]();
      if (outcome === "foreign" && place.isHolderManaged) throw notServed(place.holderPath);
      if (outcome === "foreign") return undefined;
    }
    throw new HolderGone();
  }

  async #ownNew(): Promise<HolderConnection> {
    const { place, onStep } = this.#options;
    const connection = await startHolder(place, onStep);
    try {
      await this.#show(connection);
      return connection;
    } catch (error) {
      connection[Symbol.dispose]();
      throw error;
    }
  }

  /** `foreign`: it belongs to another lock, is not this instance's any more, and ends by its TTL. */
  async #tryOwn(connection: HolderConnection): Promise<"owned" | "foreign" | "gone"> {
    try {
      await this.#show(connection);
      return "owned";
    } catch (error) {
      if (error instanceof HolderGone) return "gone";
      if (!(error instanceof HolderRefusal) || error.problem !== "not-owner") {
        connection[Symbol.dispose]();
        throw error;
      }
      const { pid, descriptors } = connection.status;
      const what = `The fd holder, process ${pid}, keeps ${descriptors} descriptors for a server with another lock file`;
      this.#options.onWarning(`${what}: somebody removed this instance's. They are freed when its time is over`, error);
      return "foreign";
    }
  }

  /** The lock travels only to an fd holder that has just answered: unread in a socket, it would outlive this process. */
  async #show(connection: HolderConnection): Promise<void> {
    const { place, ttlMs, onStep } = this.#options;
    const shown = connection.ask({ op: "own", ...(ttlMs === undefined ? {} : { ttl_ms: ttlMs }) }, () => [place.lock]);
    onStep?.("holder.lock-sent");
    await shown;
    onStep?.("holder.owned");
  }

  async #giveAgain(connection: HolderConnection): Promise<void> {
    if (this.#kept.size === 0) return;
    const has = new Set(await listTokens(connection));
    const missing = [...this.#kept.keys()].filter((token) => !has.has(token));
    const asked = missing.map((token) => this.#giveOneAgain(connection, token));
    const failures = (await Promise.allSettled(asked)).flatMap((each) =>
      each.status === "rejected" ? [each.reason] : [],
    );
    const gone = failures.find((error) => error instanceof HolderGone);
    if (gone !== undefined) throw gone;
    if (failures.length === 0) return;
    const count = `${failures.length} of ${missing.length}`;
    this.#options.onWarning(
      `The new fd holder does not keep ${count} descriptors: a crash now loses those`,
      failures[0],
    );
  }

  /** Nothing, if it was dropped meanwhile. */
  async #giveOneAgain(connection: HolderConnection, token: string): Promise<void> {
    const what = this.#kept.get(token);
    if (what === undefined) return;
    await withDescriptor(what, (fd) =>
      connection.ask({ op: "keep", token }, () => (this.#kept.get(token) === what ? [fd] : undefined)),
    );
  }

  /** While it is away, a crash of this process loses what is kept, so it is replaced at once; one that ends soon again, later. */
  async #replace(ended: HolderConnection): Promise<void> {
    const { signal } = this.#disposing;
    this.#connection = undefined;
    this.#open = undefined;
    const count = this.#kept.size;
    if (signal.aborted || count === 0) return;
    const lived = ended.livedMs;
    this.#retryMs = lived > limits.holderRetryMaxMs ? 0 : this.#nextRetryMs();
    this.#options.onWarning(
      `The fd holder, process ${ended.status.pid}, ended; a new one is started for ${count} descriptors`,
      undefined,
    );
    while (!signal.aborted && this.#kept.size > 0) {
      try {
        await sleep(this.#retryMs, undefined, { signal, ref: false });
        await this.#connect();
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#retryMs = this.#nextRetryMs();
        this.#options.onWarning(`Cannot start an fd holder; the next try is in ${this.#retryMs} ms`, error);
      }
    }
  }

  #nextRetryMs(): number {
    return Math.min(Math.max(limits.holderRetryMinMs, 2 * this.#retryMs), limits.holderRetryMaxMs);
  }
}

/** With a descriptor of `what`, which is closed afterwards if it was made for this. */
async function withDescriptor(what: Keepable, use: (fd: number) => Promise<unknown>): Promise<void> {
  if (typeof what === "number") return void (await use(what));
  const fd = await what();
  try {
    await use(fd);
  } finally {
    closeSync(fd);
  }
}

async function listTokens(connection: HolderConnection): Promise<readonly string[]> {
  const all: string[] = [];
  for (let after = "", more = true; more; after = all.at(-1) ?? "") {
    const answer = await connection.ask({ op: "list", after });
    all.push(...(answer.tokens ?? []));
    more = answer.more === true && (answer.tokens ?? []).length > 0;
  }
  return all;
}

/** As those who asked are told. */
function toFailure(error: unknown): unknown {
  if (error instanceof HolderRefusal && error.problem === "out-of-descriptors") {
    return new TensordError(
      "out-of-descriptors",
      "Cannot keep memory over a restart: the fd holder may have no more descriptors open",
      {
        errno: "EMFILE",
        hint: "Raise the server's hard limit of open files (LimitNOFILE=, --ulimit nofile=, ulimit -Hn), or delete regions.",
      },
      { cause: error },
    );
  }
  if (error instanceof HolderRefusal || error instanceof HolderGone) {
    return new TensordError(
      "io-error",
      `Cannot keep memory over a restart: ${error instanceof HolderGone ? "the fd holder ended again and again" : error.message}`,
      { hint: "tensord doctor says how it is. Ask again in a moment, or use shm storage, which needs none." },
      { cause: error },
    );
  }
  return error;
}
