/**
 * The fd holder itself: a loop that keeps descriptors for whoever owns the instance's lock, and ends when nobody comes for
 * them. It has nothing else of the server's, writes nothing anywhere, and waits in poll(2), so that it costs nothing meanwhile.
 */

import { closeSync, fstatSync, writeSync } from "node:fs";
import { SystemError } from "../../error.ts";
import { limits } from "../../limits.ts";
import { tryLockFile } from "../../os/libc.ts";
import { addToPoll, createPoll, PollReport, pollEvents } from "../../os/libc-poll.ts";
import { acceptConnection, type Message, receiveMessage, sendMessage } from "../../os/libc-unix.ts";
import {
  type HolderProblem,
  listedTokens,
  parseRequest,
  protocolVersion,
  type Request,
  type Said,
} from "./protocol.ts";

export interface HoldOptions {
  /** Listens for packets; it stays open until the process ends. */
  readonly listener: number;
  /** The file whose lock the instance's server holds, now; undefined if there is none. */
  readonly lock: () => LockFile | undefined;
  /** How many descriptors may be kept. */
  readonly capacity: number;
}

/** What tells the file with an instance's lock from others. */
export interface LockFile {
  readonly dev: bigint;
  readonly ino: bigint;
}

interface Connection {
  readonly socket: number;
  /** Gets a byte after every answer, and ends with this process. */
  bell: number | undefined;
  /** Whether it has shown the lock. */
  isOwner: boolean;
  /** A server's TTL; undefined for who only looks. */
  ttlMs: number | undefined;
  /** Until then it has to show the lock. */
  readonly untilMs: number;
}

type Reply = { readonly answer: Said; readonly fds?: readonly number[] };

const done: Reply = { answer: { ok: true } };

/** Returns when nothing is kept and no server is there, when the time for one is over, or when a server says so. */
export function holdDescriptors(options: HoldOptions): void {
  const holder = new Holder(options);
  while (!holder.hasEnded) holder.turn();
}

class Holder {
  readonly #options: HoldOptions;
  readonly #poll = createPoll();
  /** The listener, and every connection. */
  readonly #report = new PollReport(1 + limits.holderConnections);
  readonly #startedMs = performance.now();
  readonly #kept = new Map<string, number>();
  readonly #connections = new Map<number, Connection>();
  /** When everything is freed, while no server is there. */
  #deadlineMs: number | undefined;
  #isTold = false;

  constructor(options: HoldOptions) {
    this.#options = options;
    addToPoll(this.#poll, options.listener, pollEvents.readable, options.listener);
    // Who started it has connected already.
    this.#accept();
  }

  get hasEnded(): boolean {
    if (this.#isTold) return true;
    if (this.#deadlineMs !== undefined && performance.now() >= this.#deadlineMs) return true;
    return this.#kept.size === 0 && this.#connections.size === 0;
  }

  /** Waits for something to happen, and does what is asked. */
  turn(): void {
    this.#report.wait(this.#poll, this.#waitMs());
    const ready = [...this.#report].map(({ data }) => data);
    // Those that are there first: a new owner's word must not be overtaken by what an earlier one had sent.
    for (const socket of ready) {
      const connection = this.#connections.get(socket);
      if (connection !== undefined) this.#serveOrClose(connection);
    }
    if (ready.includes(this.#options.listener)) this.#accept();
    const now = performance.now();
    for (const connection of this.#connections.values()) {
      if (!connection.isOwner && now >= connection.untilMs) this.#close(connection);
    }
  }

  /** -1: for ever. */
  #waitMs(): number {
    const strangers = [...this.#connections.values()].filter(({ isOwner }) => !isOwner).map(({ untilMs }) => untilMs);
    const next = Math.min(this.#deadlineMs ?? Number.POSITIVE_INFINITY, ...strangers);
    if (next === Number.POSITIVE_INFINITY) return -1;
    return Math.min(Math.max(0, Math.ceil(next - performance.now())), 2 ** 31 - 1);
  }

  #accept(): void {
    for (;;) {
      const socket = acceptOrRest(this.#options.listener);
      if (socket === undefined) return;
      if (this.#connections.size >= limits.holderConnections) this.#closeOldestStranger();
      addToPoll(this.#poll, socket, pollEvents.readable, socket);
      const untilMs = performance.now() + limits.holderAnswerMs;
      this.#connections.set(socket, { socket, bell: undefined, isOwner: false, ttlMs: undefined, untilMs });
    }
  }

  /** Who says nothing must not keep a server out. */
  #closeOldestStranger(): void {
    const oldest = [...this.#connections.values()].find(({ isOwner }) => !isOwner);
    if (oldest !== undefined) this.#close(oldest);
  }

  /** What fails here fails for one connection: what is kept for others must not go with it. */
  #serveOrClose(connection: Connection): void {
    try {
      this.#serve(connection);
    } catch {
      this.#close(connection);
    }
  }

  /** A connection that ends, says what is no request, or does not read its answers is closed. */
  #serve(connection: Connection): void {
    for (let count = 0; count < limits.holderTurn && this.#connections.has(connection.socket); count++) {
      const message = receiveMessage(connection.socket, 1);
      if (message === undefined) break;
      // No bytes are the connection's end, and no request either.
      const request = message === "gone" ? undefined : parseRequest(message.bytes);
      if (message === "gone" || request === undefined) {
        if (message !== "gone") for (const fd of message.descriptors) closeSync(fd);
        return this.#close(connection);
      }
      const { answer, fds = [] } = this.#answer(connection, request, message);
      const text = JSON.stringify({ id: request.id, ...answer });
      if (sendMessage(connection.socket, text, fds) !== "sent") return this.#close(connection);
    }
    if (connection.bell !== undefined) ring(connection.bell);
  }

  /** Descriptors that nobody asked for are closed. */
  #answer(connection: Connection, request: Request, { descriptors, isShort }: Message): Reply {
    const [first, ...others] = descriptors;
    for (const fd of others) closeSync(fd);
    if (request.op === "hello") return this.#hello(connection, request.v, first);
    if (request.op === "own") return this.#own(connection, request.ttl_ms, first);
    if (request.op === "keep" && connection.isOwner) return this.#keep(request.token, first, isShort);
    if (first !== undefined) closeSync(first);
    if (!connection.isOwner) return refuse("not-owner");
    switch (request.op) {
      case "give": {
        const fd = this.#kept.get(request.token);
        return fd === undefined ? refuse("unknown-token") : { ...done, fds: [fd] };
      }
      case "drop": {
        const fd = this.#kept.get(request.token);
        this.#kept.delete(request.token);
        if (fd !== undefined) closeSync(fd);
        return done;
      }
      case "list":
        return { answer: { ok: true, ...this.#list(request.after) } };
      case "end":
        this.#isTold = true;
        return done;
      default:
        return refuse("malformed");
    }
  }

  #hello(connection: Connection, v: number, bell: number | undefined): Reply {
    if (bell !== undefined) {
      if (connection.bell !== undefined) closeSync(connection.bell);
      connection.bell = bell;
    }
    if (v < 1) return refuse("version");
    return {
      answer: {
        ok: true,
        v: Math.min(v, protocolVersion),
        pid: process.pid,
        descriptors: this.#kept.size,
        age_ms: Math.round(performance.now() - this.#startedMs),
      },
    };
  }

  /**
   * The lock belongs to an open file description, so taking it again succeeds through a copy of the owner's own descriptor
   * alone. The copy is closed at once: while it is open the lock lives, whatever became of the server.
   */
  #own(connection: Connection, ttlMs: number | undefined, lock: number | undefined): Reply {
    if (lock === undefined) return refuse("no-descriptor");
    let isOwner: boolean;
    try {
      const { dev, ino } = fstatSync(lock, { bigint: true });
      const wanted = this.#options.lock();
      isOwner = dev === wanted?.dev && ino === wanted.ino && tryLockFile(lock);
    } catch {
      // No file that can be locked for writing.
      isOwner = false;
    } finally {
      closeSync(lock);
    }
    if (!isOwner) return refuse("not-owner");
    connection.isOwner = true;
    connection.ttlMs = ttlMs;
    // Whoever owned the lock before is gone. What it had sent and nobody has read was never acknowledged.
    for (const other of this.#connections.values()) if (other !== connection && other.isOwner) this.#close(other);
    if (ttlMs !== undefined) this.#deadlineMs = undefined;
    return done;
  }

  /** A token that is kept already is kept anew. */
  #keep(token: string, fd: number | undefined, isShort: boolean): Reply {
    if (isShort || this.#kept.size >= this.#options.capacity) {
      if (fd !== undefined) closeSync(fd);
      return refuse("out-of-descriptors");
    }
    if (fd === undefined) return refuse("no-descriptor");
    const earlier = this.#kept.get(token);
    if (earlier !== undefined) closeSync(earlier);
    this.#kept.set(token, fd);
    return done;
  }

  /** Pages go by the tokens' order, so that what comes and goes meanwhile moves nothing else. */
  #list(after: string): { tokens: readonly string[]; more: boolean } {
    const following = [...this.#kept.keys()].filter((token) => token > after).sort();
    return { tokens: following.slice(0, listedTokens), more: following.length > listedTokens };
  }

  #close(connection: Connection): void {
    if (!this.#connections.delete(connection.socket)) return;
    closeSync(connection.socket);
    if (connection.bell !== undefined) closeSync(connection.bell);
    if (connection.ttlMs !== undefined) this.#deadlineMs = performance.now() + connection.ttlMs;
  }
}

function refuse(problem: HolderProblem): Reply {
  return { answer: { ok: false, problem } };
}

/** Where the whole machine has no descriptor left it rests, instead of asking again and again. */
function acceptOrRest(listener: number): number | undefined {
  try {
    return acceptConnection(listener);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    Bun.sleepSync(limits.holderRestMs);
    return undefined;
  }
}

/** A bell that is full has rung, and one that nobody hears belongs to a connection that is about to end. */
function ring(bell: number): void {
  try {
    writeSync(bell, "!");
  } catch {}
}
