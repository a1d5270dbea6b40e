/**
 * The broker's half that waits: it takes connections, and reads of each a request when the last one was answered. It answers nobody and
 * closes nothing: what happened is reported, in order, to whoever owns the descriptors, which tells in turn what became of it.
 */

import { readSync } from "node:fs";
import { limits } from "../../memory/limits.ts";
import { isOutOfDescriptors } from "../../memory/os/descriptors.ts";
import { addToPoll, PollReport, pollEvents, removeFromPoll } from "../../memory/os/libc-poll.ts";
import { setPollEvents } from "../../memory/os/libc-sockets.ts";
import {
  acceptConnection,
  endOneWay,
  readPeerCredentials,
  readUnread,
  receiveMessage,
} from "../../memory/os/libc-unix.ts";
import { FastLane } from "./fast-lane.ts";
import { type Frame, parseFrame } from "./frames.ts";
import {
  type Ending,
  type HandedTo,
  type PollEvent,
  type PollTask,
  pollData,
  shared,
  type Word,
  words,
} from "./poll-protocol.ts";
import type { Ticket } from "./tickets.ts";

interface Slot {
  readonly fd: number;
  state: "reading" | "asked" | "waiting" | "ended";
  /** What may be handed out there by ticket. */
  reach: "none" | "reading" | "writing";
  /** The request that is under way. */
  frame: Frame | undefined;
  /** When it connected, or its peer last read something of what was unread. */
  since: number;
  unread: number;
}

const { readable, writable, peerEnded, failed, over } = pollEvents;
const peerIsGone: Ending = { kind: "peer" };

export class BrokerPoll {
  readonly #task: PollTask;
  readonly #shared: Int32Array;
  readonly #send: (event: PollEvent) => void;
  readonly #events = new PollReport(64);
  readonly #slots: (Slot | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  #open = 0;
  /** Slots that have sent nothing yet, and those that may have something to read. */
  readonly #silent = new Set<number>();
  readonly #unread = new Set<number>();
  #lookedAt = performance.now();
  #isStopped = false;
  readonly #words = Buffer.alloc(64 * 1024);
  /** Of a ticket that has not come whole. */
  #rest = Buffer.alloc(0);
  readonly #fastLane: FastLane;
  #handed = 0;
  /** What is told with the next thing that is, or in a moment: to wake the owner costs more than to hand out. */
  #untold: HandedTo[] = [];
  #untoldSince = 0;

  constructor(task: PollTask, report: (event: PollEvent) => void) {
    this.#task = task;
    this.#shared = new Int32Array(task.shared);
    this.#send = report;
    this.#fastLane = new FastLane(task.tickets);
  }

  /** Holds the thread until it is told to stop. */
  run(): void {
    while (!this.#isStopped) this.#turn();
    this.#report({ kind: "stopped" });
  }

  #turn(): void {
    this.#events.wait(this.#task.epoll, this.#timeoutMs());
    for (const { events, data } of this.#events) {
      if (data === pollData.words) this.#readWords();
      else if (data === pollData.listener) this.#accept();
      else this.#look(data, events);
    }
    if (this.#untold.length > 0 && performance.now() - this.#untoldSince >= limits.brokerTellMs) this.#tell();
    if (performance.now() - this.#lookedAt >= this.#task.patience.lookMs) this.#lookAtTheSlow();
  }

  #timeoutMs(): number {
    if (this.#untold.length > 0) return limits.brokerTellMs;
    return this.#silent.size + this.#unread.size > 0 ? this.#task.patience.lookMs : -1;
  }

  /** In the order in which it happened. */
  #report(event: PollEvent): void {
    this.#tell();
    this.#send(event);
  }

  #tell(): void {
    if (this.#untold.length === 0) return;
    this.#send({ kind: "handed", all: this.#untold });
    this.#untold = [];
  }

  #accept(): void {
    const listener = this.#shared[shared.listener] ?? -1;
    for (let count = 0; count < limits.brokerAccepts; count++) {
      // What was refused is closed in a moment: until then its descriptor counts.
      const most = (this.#shared[shared.most] ?? 0) + limits.brokerAccepts;
      if (this.#slots.length - this.#freeSlots.length >= most) return rest();
      try {
        const fd = acceptConnection(listener);
        if (fd === undefined) return;
        this.#enter(fd);
      } catch (error) {
        if (!isOutOfDescriptors(error)) throw error;
        return rest();
      }
    }
  }

  #enter(fd: number): void {
    const slot = this.#freeSlots.pop() ?? this.#slots.length;
    const entry: Slot = {
      fd,
      state: "reading",
      reach: "none",
      frame: undefined,
      since: performance.now(),
      unread: 0,
    };
    this.#slots[slot] = entry;
    this.#open += 1;
    addToPoll(this.#task.epoll, fd, readable | peerEnded, slot);
    this.#report({ kind: "opened", slot, fd, peer: readPeerCredentials(fd) });
    this.#silent.add(slot);
    const most = this.#shared[shared.most] ?? 0;
    if (this.#open > most) this.#end(slot, entry, { kind: "crowded", why: `${most} are open, the most that may` });
  }

  #look(slot: number, events: number): void {
    const entry = this.#slots[slot];
    if (entry === undefined || entry.state === "ended") return;
    if ((events & (over | failed)) !== 0) return this.#end(slot, entry, peerIsGone);
    if (entry.state === "waiting") return this.#ask(slot, entry);
    if (entry.state === "reading") this.#read(slot, entry, events);
  }

  #read(slot: number, entry: Slot, events: number): void {
    const message = receiveMessage(entry.fd);
    if (message === undefined) return;
    if (message === "gone") return this.#end(slot, entry, peerIsGone);
    const { bytes, isCut, isShort } = message;
    // The end of a connection reads like an empty message.
    if (bytes.length === 0 && (events & peerEnded) !== 0) return this.#end(slot, entry, peerIsGone);
    this.#silent.delete(slot);
    if (this.#unread.has(slot)) this.#sample(slot, entry);
    const mistake = isCut ? `it is longer than ${limits.brokerFrameBytes} bytes` : "it carries descriptors";
    const frame = isCut || isShort ? mistake : parseFrame(bytes);
    if (typeof frame === "string") return this.#end(slot, entry, { kind: "malformed", why: frame });
    if (entry.reach !== "none" && this.#handOut(slot, entry, frame)) return;
    entry.frame = frame;
    this.#ask(slot, entry);
  }

  /** Unless the loop has still to hear of too many. @returns whether it was answered. */
  #handOut(slot: number, entry: Slot, frame: Frame): boolean {
    if (this.#handed - (this.#shared[shared.heard] ?? 0) >= limits.brokerAhead) return false;
    const handed = this.#fastLane.tryAnswer(entry.fd, frame, entry.reach === "writing");
    if (handed === undefined) return false;
    this.#handed = (this.#handed + 1) | 0;
    this.#watch(slot, entry);
    if (this.#untold.length === 0) this.#untoldSince = performance.now();
    this.#untold.push({ slot, ...handed });
    return true;
  }

  #ask(slot: number, entry: Slot): void {
    if (entry.frame === undefined) return;
    this.#set(slot, entry, "asked");
    this.#report({ kind: "asked", slot, frame: entry.frame });
  }

  /** What ends is told whatever is waited for. */
  #set(slot: number, entry: Slot, state: "reading" | "asked" | "waiting"): void {
    entry.state = state;
    const events = { reading: readable | peerEnded, asked: 0, waiting: writable }[state];
    setPollEvents(this.#task.epoll, entry.fd, events, BigInt(slot));
  }

  #end(slot: number, entry: Slot, ending: Ending): void {
    entry.state = "ended";
    entry.frame = undefined;
    this.#open -= 1;
    this.#silent.delete(slot);
    this.#unread.delete(slot);
    removeFromPoll(this.#task.epoll, entry.fd);
    if (ending.kind !== "peer") passOver(entry.fd);
    this.#report({ kind: "ended", slot, ending });
  }

  #readWords(): void {
    const byteSize = readSync(this.#task.words, this.#words);
    const bytes = Buffer.concat([this.#rest, this.#words.subarray(0, byteSize)]);
    let at = 0;
    while (at + 4 <= bytes.length) {
      const value = bytes.readUInt32LE(at);
      const [word = "stop", slot] = [words[value % words.length], Math.floor(value / words.length)];
      const end = at + 4 + (word === "ticket" ? slot : 0);
      if (end > bytes.length) break;
      if (word === "ticket") this.#fastLane.keep(JSON.parse(bytes.toString("utf8", at + 4, end)) as Ticket);
      else this.#obey(word, slot);
      at = end;
    }
    this.#rest = bytes.subarray(at);
  }

  #obey(word: Exclude<Word, "ticket">, slot: number): void {
    if (word === "stop") {
      this.#isStopped = true;
      return;
    }
    if (word === "closed") {
      this.#slots[slot] = undefined;
      this.#freeSlots.push(slot);
      return;
    }
    const entry = this.#slots[slot];
    if (entry === undefined || entry.state === "ended") return;
    this.#watch(slot, entry);
    if (word === "full") return this.#set(slot, entry, "waiting");
    if (word === "readable") entry.reach = "reading";
    if (word === "writable") entry.reach = "writing";
    entry.frame = undefined;
    this.#set(slot, entry, "reading");
  }

  /** Something was sent, or has no room: whoever does not read it is ended at last. */
  #watch(slot: number, entry: Slot): void {
    if (this.#unread.has(slot)) return this.#sample(slot, entry);
    this.#unread.add(slot);
    entry.since = performance.now();
    entry.unread = Number.POSITIVE_INFINITY;
  }

  #lookAtTheSlow(): void {
    const { helloMs } = this.#task.patience;
    const now = performance.now();
    this.#lookedAt = now;
    for (const slot of [...this.#silent]) {
      const entry = this.#slots[slot];
      if (entry === undefined || now - entry.since <= helloMs) continue;
      this.#end(slot, entry, { kind: "silent", why: `it sent nothing in ${helloMs} ms` });
    }
    for (const slot of [...this.#unread]) {
      const entry = this.#slots[slot];
      if (entry !== undefined) this.#lookAtUnread(slot, entry, now);
    }
  }

  /**
   * Whoever has less to read than before reads. That is seen whenever it asks and is answered: at a look alone, which may follow an
   * answer each time, there would be as much as ever.
   */
  #sample(slot: number, entry: Slot): void {
    const unread = readUnread(entry.fd);
    if (unread === 0 && entry.state !== "waiting") this.#unread.delete(slot);
    if (unread < entry.unread) entry.since = performance.now();
    entry.unread = unread;
  }

  #lookAtUnread(slot: number, entry: Slot, now: number): void {
    this.#sample(slot, entry);
    const { stallMs } = this.#task.patience;
    if (!this.#unread.has(slot) || now - entry.since <= stallMs) return;
    this.#end(slot, entry, { kind: "stalled", why: `it read nothing in ${stallMs} ms` });
  }
}

/** Whoever closes a connection with messages that it has not read loses its own last one. */
function passOver(fd: number): void {
  endOneWay(fd, "receiving");
  for (let count = 0; count < limits.brokerPassedOver; count++) {
    const message = receiveMessage(fd);
    if (message === undefined || message === "gone" || (message.bytes.length === 0 && !message.isShort)) return;
  }
}

/** Connections wait in the kernel's queue, and are told of without end. */
function rest(): void {
  Bun.sleepSync(limits.brokerRestMs);
}
