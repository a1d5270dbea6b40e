/**
 * The broker's socket, and the descriptors of all its connections. A Worker waits for them (`broker-poll.ts`); what they ask is
 * answered here, in the turn in which it is heard, or later if a device has to be asked: the Worker reads no other request there until
 * then. A descriptor that was taken is closed here alone, after the Worker has said that it is done with it: its number may be
 * anything's from then on.
 */

import { closeSync } from "node:fs";
import { limits } from "../../memory/limits.ts";
import { addToPoll, createPoll, pollEvents } from "../../memory/os/libc-poll.ts";
import { endConnection } from "../../memory/os/libc-sockets.ts";
import { type Peer, sendMessage } from "../../memory/os/libc-unix.ts";
import type { Region } from "../../memory/state/region.ts";
import type { Store } from "../../memory/state/store.ts";
import { toProblem } from "../../routes/problem.ts";
import { openAuthority } from "../access/authority.ts";
import type { BrokerAnswer } from "./answer.ts";
import { BrokerSocket } from "./broker-socket.ts";
import { type BrokerAccess, Conversation } from "./conversation.ts";
import { toFailure, tooLong, unreadElsewhere } from "./failures.ts";
import type { Frame } from "./frames.ts";
import { type HandedTo, type Patience, type PollEvent, type PollTask, pollData, shared } from "./poll-protocol.ts";
import { TicketOffice } from "./tickets.ts";
import { UnreadDescriptors } from "./unread-descriptors.ts";
import { WordPipe } from "./word-pipe.ts";

export interface BrokerParts {
  readonly store: Store;
  readonly onUnexpected: (error: unknown, requestId: string) => void;
  readonly onWarning: (message: string, error: unknown) => void;
  /** Hears of each connection's descriptor when it is taken, and before it is closed. */
  readonly onOpen: (fd: number) => void;
  readonly onClose: (fd: number) => void;
  readonly patience?: Patience;
  /** Regions of which the Worker may know. */
  readonly tickets?: number;
  /** Of a server that asks for no tokens it is left out. */
  readonly access?: BrokerAccess | undefined;
}

const usualPatience: Patience = {
  helloMs: limits.brokerHelloMs,
  stallMs: limits.brokerStallMs,
  lookMs: limits.brokerLookMs,
};

/** What the Worker is told of a request that was looked at. */
type Answered = "answered" | "readable" | "writable" | "full";

/** By what may be handed out there by ticket. */
const wordOf = { none: "answered", reading: "readable", writing: "writable" } as const;

/** What the Worker says once it is up. */
type ToldEvent = Exclude<PollEvent, { readonly kind: "up" }>;

interface Connection {
  readonly slot: number;
  readonly fd: number;
  readonly conversation: Conversation;
  /** Descriptors that were sent since its peer had read everything. */
  unread: number;
}

export class Broker {
  readonly #parts: BrokerParts;
  readonly #epoll: number;
  readonly #words = new WordPipe();
  readonly #shared = new SharedArrayBuffer(4 * shared.length);
  readonly #counts = new Int32Array(this.#shared);
  readonly #ticketMemory: SharedArrayBuffer;
  readonly #tickets: TicketOffice;
  readonly #connections = new Map<number, Connection>();
  /** What the Worker said, until it is this turn's or a later one's. */
  #events: ToldEvent[] = [];
  #isBusy = false;
  #worker: Worker | undefined;
  readonly #unread = new UnreadDescriptors();
  #socket: BrokerSocket | undefined;
  /** Of the Worker that runs, or ran last. */
  #workerStopped = Promise.withResolvers<void>();
  #stopped: Promise<void> | undefined;

  private constructor(parts: BrokerParts) {
    this.#parts = parts;
    this.#ticketMemory = new SharedArrayBuffer(4 * (parts.tickets ?? limits.brokerTickets));
    this.#tickets = new TicketOffice(parts.store, this.#ticketMemory);
    this.#epoll = createPoll();
    addToPoll(this.#epoll, this.#words.readEnd, pollEvents.readable, pollData.words);
    this.#counts[shared.most] = limits.brokerConnections;
  }

  /** With its Worker up, which takes descriptors and time; nobody can connect yet. @throws Error if the Worker dies. */
  static async start(parts: BrokerParts): Promise<Broker> {
    const broker = new Broker(parts);
    try {
      await broker.#startWorker();
      return broker;
    } catch (error) {
      await broker.stop();
      throw error;
    }
  }

  /** @throws Error if the Worker dies before it is up. */
  #startWorker(): Promise<void> {
    this.#workerStopped = Promise.withResolvers();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let isUp = false;
    const worker = new Worker(new URL("./broker.worker.ts", import.meta.url).href);
    worker.unref();
    worker.onmessage = ({ data }: MessageEvent<PollEvent>) => {
      if (data.kind !== "up") return this.#hear(data);
      isUp = true;
      resolve();
    };
    worker.onerror = (event) => {
      const error = new Error(`the broker's Worker died: ${event.message}`);
      this.#worker = undefined;
      this.#workerStopped.resolve();
      if (isUp) this.#restart(error);
      else reject(error);
    };
    const { patience = usualPatience } = this.#parts;
    const task: PollTask = {
      epoll: this.#epoll,
      words: this.#words.readEnd,
      shared: this.#shared,
      tickets: this.#ticketMemory,
      patience,
    };
    worker.postMessage(task);
    this.#worker = worker;
    return promise;
  }

  /** Without it nobody would see that a client is gone: all of them have to come again. */
  #restart(error: Error): void {
    if (this.#stopped !== undefined) return;
    this.#parts.onWarning("The broker's connections are closed, and it is started again", error);
    this.#closeAll();
    this.#words.drop();
    this.#tickets.voidAll();
    this.#counts[shared.heard] = 0;
    setTimeout(() => {
      if (this.#stopped !== undefined) return;
      this.#words.empty();
      this.#startWorker().catch((error: Error) => this.#restart(error));
    }, limits.brokerRestartMs).unref();
  }

  /** Listens at `path`. @throws TensordError `io-error`, `validation-failed`. */
  listen(path: string): void {
    this.#socket = BrokerSocket.open(path);
    this.#counts[shared.listener] = this.#socket.fd;
    addToPoll(this.#epoll, this.#socket.fd, pollEvents.readable, pollData.listener);
  }

  /** @param room connections of all kinds that fit in this process, if there is a bound: of them the broker takes a share. */
  bound(room: number | undefined): void {
    if (room === undefined) return;
    const share = Math.floor((room * limits.brokerConnectionsPercent) / 100);
    this.#counts[shared.most] = Math.min(limits.brokerConnections, share);
  }

  /** Where it listens; null if it does not. */
  get path(): string | null {
    return this.#socket?.path ?? null;
  }

  /** Connections that are open. */
  get size(): number {
    return this.#connections.size;
  }

  /** What comes by the hundred is answered in turns of which others have every second one. */
  #hear(event: ToldEvent): void {
    this.#events.push(event);
    if (!this.#isBusy) this.#act();
  }

  #act(): void {
    for (const event of this.#events.splice(0, limits.brokerSlice)) this.#obey(event);
    this.#isBusy = this.#events.length > 0;
    if (this.#isBusy) setImmediate(() => this.#act());
  }

  #obey(event: ToldEvent): void {
    if (event.kind === "stopped") return this.#workerStopped.resolve();
    if (event.kind === "opened") return this.#open(event);
    if (event.kind === "handed") return this.#noteHanded(event.all);
    const connection = this.#connections.get(event.slot);
    if (connection === undefined) return;
    if (event.kind === "asked") return this.#answer(connection, event.frame);
    this.#connections.delete(event.slot);
    if (event.ending.kind !== "peer") this.#say(connection, null, toFailure(event.ending));
    this.#close(connection, event.ending.kind === "peer" ? "peer" : "server");
    this.#words.tell("closed", event.slot);
  }

  #noteHanded(all: readonly HandedTo[]): void {
    for (const handed of all) this.#connections.get(handed.slot)?.conversation.handed(handed);
    this.#counts[shared.heard] = ((this.#counts[shared.heard] ?? 0) + all.length) | 0;
  }

  #open({ slot, fd, peer }: { readonly slot: number; readonly fd: number; readonly peer: Peer }): void {
    this.#parts.onOpen(fd);
    const { store, access = openAuthority } = this.#parts;
    const conversation = new Conversation(store, peer, () => endConnection(fd), access);
    this.#connections.set(slot, { slot, fd, conversation, unread: 0 });
  }

  #close(connection: Connection, closedBy: "peer" | "server"): void {
    const { fd, conversation } = connection;
    this.#unread.forget(connection);
    this.#parts.onClose(fd);
    closeSync(fd);
    conversation.ended(closedBy);
  }

  #answer(connection: Connection, frame: Frame): void {
    try {
      const answer = connection.conversation.answer(frame);
      if (answer instanceof Promise) void this.#answerLater(connection, frame, answer);
      else this.#finish(connection, frame, () => answer);
    } catch (error) {
      this.#finish(connection, frame, () => {
        throw error;
      });
    }
  }

  async #answerLater(connection: Connection, frame: Frame, coming: Promise<BrokerAnswer>): Promise<void> {
    const [outcome] = await Promise.allSettled([coming]);
    const take = () => {
      if (outcome.status === "rejected") throw outcome.reason;
      return outcome.value;
    };
    if (this.#connections.get(connection.slot) === connection) return this.#finish(connection, frame, take);
    // Its peer is gone: what was meant for it goes.
    if (outcome.status === "fulfilled") outcome.value[Symbol.dispose]();
  }

  /** Answers with what `take` gives, or throws. */
  #finish(connection: Connection, frame: Frame, take: () => BrokerAnswer): void {
    let word: Answered = "answered";
    try {
      word = this.#tryAnswer(connection, frame, take);
    } catch (error) {
      this.#parts.onUnexpected(error, crypto.randomUUID());
      endConnection(connection.fd);
    }
    this.#words.tell(word, connection.slot);
  }

  #tryAnswer(connection: Connection, frame: Frame, take: () => BrokerAnswer): Answered {
    try {
      using answer = take();
      return this.#send(connection, frame.id, answer);
    } catch (error) {
      return this.#say(connection, frame.id, error);
    }
  }

  #send(connection: Connection, id: number, answer: BrokerAnswer): Answered {
    const { members, descriptors, sent, region } = answer;
    const text = JSON.stringify({ id, ok: true, ...members });
    if (Buffer.byteLength(text) > limits.brokerFrameBytes) throw tooLong();
    this.#unread.check(connection, descriptors.length, this.#connections.values());
    const sending = sendMessage(connection.fd, text, descriptors);
    if (sending === "full") return "full";
    if (sending === "flood") throw unreadElsewhere();
    if (sending === "gone") return "answered";
    this.#unread.add(connection, descriptors.length);
    sent();
    if (region !== undefined) this.#tellTicket(region);
    return wordOf[connection.conversation.reach];
  }

  /** From now on the Worker hands it out by itself. */
  #tellTicket(region: Region): void {
    const ticket = this.#tickets.issue(region);
    if (ticket !== undefined) this.#words.tellTicket(ticket);
  }

  #say({ fd }: Connection, id: number | null, error: unknown): "answered" | "full" {
    const requestId = crypto.randomUUID();
    const problem = toProblem(error, requestId, (cause) => this.#parts.onUnexpected(cause, requestId));
    return sendMessage(fd, JSON.stringify({ id, ok: false, problem })) === "full" ? "full" : "answered";
  }

  /** Nobody can connect any more, and connections are closed: the TTL of a session that one held runs on. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    const worker = this.#worker;
    if (worker !== undefined) {
      worker.ref();
      this.#words.tell("stop", 0);
      await this.#workerStopped.promise;
      worker.terminate();
    }
    this.#tickets[Symbol.dispose]();
    this.#closeAll();
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
    this.#words[Symbol.dispose]();
    closeSync(this.#epoll);
  }

  /** Those too that were taken and not looked at yet. */
  #closeAll(): void {
    for (const event of this.#events) if (event.kind === "opened") this.#open(event);
    this.#events = [];
    for (const connection of this.#connections.values()) this.#close(connection, "server");
    this.#connections.clear();
  }
}
