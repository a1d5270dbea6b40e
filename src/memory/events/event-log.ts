/**
 * The kept events: a bounded ring of what was told, each under a sequence number that never repeats. It knows neither
 * the wire nor who listens.
 */

import { limits } from "../limits.ts";
import { KeptTexts } from "./kept-texts.ts";
import { KeptWords } from "./kept-words.ts";

/** Type, model, session, and who made it. */
const headWords = 4;

/** What an event is about: the model, and the session by its token, if any. */
export interface EventTopic {
  readonly model: string | null;
  readonly session: string | null;
  /** Of a session, whose it is: the name of a token. */
  readonly createdBy?: string | null;
}

export interface EventHead extends EventTopic {
  readonly type: string;
}

export interface KeptEvent extends EventHead {
  readonly sequence: number;
  /** As it is sent. */
  readonly text: string;
}

/** An event that is written when somebody reads it: most are read by nobody. */
export interface UnwrittenEvent {
  /** About what its text will have, or a little more. */
  readonly byteSize: number;
  /** All that its text is made of, as it was when it was told. */
  readonly packed: string;
  /** Makes the text of that. One function for all events: each is kept with it. */
  readonly write: WriteEvent;
}

export type WriteEvent = (packed: string, type: string, sequence: number) => string;

/** What an earlier server kept, and the first number that none of its events has. */
export interface EventHistory {
  readonly next: number;
  readonly events: readonly KeptEvent[];
}

export class EventLog {
  readonly #texts = new KeptTexts(limits.keptEvents);
  /** How each text is made of what is kept; undefined: that is the text. */
  readonly #writers: (WriteEvent | undefined)[] = [];
  readonly #words = new KeptWords();
  /** Type, model, session and who made it of each slot, as `#words` has them. */
  readonly #heads = new Uint32Array(limits.keptEvents * headWords);
  readonly #sizes = new Float64Array(limits.keptEvents);
  readonly #read = new ReadEvents();
  readonly #reserve: (end: number) => boolean;
  readonly #listeners = new Set<() => void>();
  #first: number;
  #next: number;
  #reservedEnd: number;
  #bytes = 0;

  /** @param reserve writes down that numbers below `end` may be in use; false if it could not, to be tried again. */
  constructor(history: EventHistory, reserve: (end: number) => boolean) {
    this.#reserve = reserve;
    this.#next = history.next;
    this.#first = history.events[0]?.sequence ?? history.next;
    this.#reservedEnd = history.next;
    for (const event of history.events) this.#keep(event.sequence, event.type, event, event.text);
  }

  /** Everything after this number is kept. */
  get floor(): number {
    return this.#first - 1;
  }

  /** The newest event's number, or `floor` if none is kept. */
  get last(): number {
    return this.#next - 1;
  }

  get size(): number {
    return this.#next - this.#first;
  }

  /** Of the texts; of one that is written when it is read, what was said of it. */
  get byteSize(): number {
    return this.#bytes;
  }

  /** What the event with this number is about, without its text. It must be kept. */
  headAt(sequence: number): EventHead {
    return this.#read.get(sequence) ?? this.#headOf(this.#slotOf(sequence));
  }

  #headOf(slot: number): EventHead {
    const head = slot * headWords;
    const type = this.#words.at(this.#heads[head] ?? 0) ?? "";
    const model = this.#words.at(this.#heads[head + 1] ?? 0);
    const session = this.#words.at(this.#heads[head + 2] ?? 0);
    const createdBy = this.#words.at(this.#heads[head + 3] ?? 0);
    return { type, model, session, ...(createdBy !== null && { createdBy }) };
  }

  /** The event with this number, which must be kept. */
  at(sequence: number): KeptEvent {
    const known = this.#read.get(sequence);
    if (known !== undefined) return known;
    const event = this.#write(sequence);
    this.#read.add(event);
    return event;
  }

  #write(sequence: number): KeptEvent {
    const slot = this.#slotOf(sequence);
    const head = this.#headOf(slot);
    const kept = this.#texts.at(slot);
    return { sequence, ...head, text: this.#writers[slot]?.(kept, head.type, sequence) ?? kept };
  }

  #slotOf(sequence: number): number {
    if (sequence < this.#first || sequence >= this.#next) throw new RangeError(`event ${sequence} is not kept`);
    return sequence % limits.keptEvents;
  }

  /** Keeps an event under the next number, which `toText` gets to write it. */
  append(type: string, topic: EventTopic, toText: (sequence: number) => string | UnwrittenEvent): void {
    if (this.#next >= this.#reservedEnd) {
      const end = this.#next + limits.sequenceBlock;
      if (this.#reserve(end)) this.#reservedEnd = end;
    }
    const sequence = this.#next;
    const text = toText(sequence);
    this.#next += 1;
    this.#keep(sequence, type, topic, text);
    for (const listener of this.#listeners) listener();
  }

  #keep(
    sequence: number,
    type: string,
    { model, session, createdBy }: EventTopic,
    text: string | UnwrittenEvent,
  ): void {
    if (sequence - this.#first >= limits.keptEvents) this.#drop();
    const slot = sequence % limits.keptEvents;
    const isText = typeof text === "string";
    this.#texts.put(slot, isText ? text : text.packed);
    this.#writers[slot] = isText ? undefined : text.write;
    const words = [type, model, session, createdBy];
    for (let index = 0; index < headWords; index++) {
      this.#heads[slot * headWords + index] = this.#words.take(words[index]);
    }
    this.#sizes[slot] = isText ? text.length : text.byteSize;
    this.#bytes += this.#sizes[slot] ?? 0;
    while (this.#bytes > limits.keptEventBytes && this.#first < sequence) this.#drop();
  }

  #drop(): void {
    const slot = this.#first % limits.keptEvents;
    this.#read.forget(this.#first);
    this.#bytes -= this.#sizes[slot] ?? 0;
    this.#texts.clear(slot);
    this.#writers[slot] = undefined;
    for (let index = 0; index < headWords; index++) this.#words.release(this.#heads[slot * headWords + index] ?? 0);
    this.#first += 1;
  }

  /** Calls `listener` after each event. Returns what ends that. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  history(): EventHistory {
    const events = Array.from({ length: this.size }, (_, index) => this.#write(this.#first + index));
    return { next: this.#next, events };
  }
}

/** Events that somebody read lately, for others who follow: all are given the same ones within moments. */
class ReadEvents {
  /** By number, in the order of the first reading. */
  readonly #events = new Map<number, KeptEvent>();
  #length = 0;

  get(sequence: number): KeptEvent | undefined {
    return this.#events.get(sequence);
  }

  add(event: KeptEvent): void {
    this.#events.set(event.sequence, event);
    this.#length += event.text.length;
    for (const oldest of this.#events.keys()) {
      if (this.#length <= limits.readEventBytes || oldest === event.sequence) break;
      this.forget(oldest);
    }
  }

  forget(sequence: number): void {
    const event = this.#events.get(sequence);
    if (event === undefined) return;
    this.#events.delete(sequence);
    this.#length -= event.text.length;
  }
}
