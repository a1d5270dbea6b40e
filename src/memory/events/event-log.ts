/**
 * The kept events: a bounded ring of what was told, each under a sequence number that never repeats. It knows neither
 * the wire nor who listens.
 */

import { limits } from "../limits.ts";

/** What an event is about: the model, and the session by its token, if any. */
export interface EventTopic {
  readonly model: string | null;
  readonly session: string | null;
  /** Of a session, whose it is: the name of a token. */
  readonly createdBy?: string | null;
}

export interface KeptEvent extends EventTopic {
  readonly sequence: number;
  readonly type: string;
  /** As it is sent. */
  readonly text: string;
}

/** An event that is written once somebody reads it: most are read by nobody. */
export interface UnwrittenEvent {
  /** About what its text will have, or a little more. */
  readonly byteSize: number;
  /** Writes the text, of what was so when it was told. */
  readonly write: () => string;
}

/** A kept event, whose text may still have to be written. */
interface Slot extends EventTopic {
  readonly sequence: number;
  readonly type: string;
  text: string | UnwrittenEvent;
}

/** What an earlier server kept, and the first number that none of its events has. */
export interface EventHistory {
  readonly next: number;
  readonly events: readonly KeptEvent[];
}

export class EventLog {
  readonly #slots: (Slot | undefined)[] = new Array(limits.keptEvents);
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
    for (const event of history.events) this.#keep(event);
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

  /** Of the texts; of one that nobody has read yet, what was said of it. */
  get byteSize(): number {
    return this.#bytes;
  }

  /** The event with this number, which must be kept. */
  at(sequence: number): KeptEvent {
    const event = this.#slots[sequence % limits.keptEvents];
    if (event?.sequence !== sequence) throw new RangeError(`event ${sequence} is not kept`);
    if (typeof event.text !== "string") {
      this.#bytes -= event.text.byteSize;
      event.text = event.text.write();
      this.#bytes += event.text.length;
    }
    return event as KeptEvent;
  }

  /** Keeps an event under the next number, which `toText` gets to write it. */
  append(type: string, topic: EventTopic, toText: (sequence: number) => string | UnwrittenEvent): void {
    if (this.#next >= this.#reservedEnd) {
      const end = this.#next + limits.sequenceBlock;
      if (this.#reserve(end)) this.#reservedEnd = end;
    }
    const sequence = this.#next;
    const event = { sequence, type, ...topic, text: toText(sequence) };
    this.#next += 1;
    this.#keep(event);
    for (const listener of this.#listeners) listener();
  }

  #keep(event: Slot): void {
    if (event.sequence - this.#first >= limits.keptEvents) this.#drop();
    this.#slots[event.sequence % limits.keptEvents] = event;
    this.#bytes += sizeOf(event);
    while (this.#bytes > limits.keptEventBytes && this.#first < event.sequence) this.#drop();
  }

  #drop(): void {
    const slot = this.#first % limits.keptEvents;
    this.#bytes -= sizeOf(this.#slots[slot]);
    this.#slots[slot] = undefined;
    this.#first += 1;
  }

  /** Calls `listener` after each event. Returns what ends that. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  history(): EventHistory {
    const events = Array.from({ length: this.size }, (_, index) => this.at(this.#first + index));
    return { next: this.#next, events };
  }
}

function sizeOf(event: Slot | undefined): number {
  if (event === undefined) return 0;
  return typeof event.text === "string" ? event.text.length : event.text.byteSize;
}
