/** A reader's place in the event log: what comes next for it, and when something that it asked for is not kept. */

import { limits } from "../limits.ts";
import type { EventHead, EventLog, EventTopic, KeptEvent } from "./event-log.ts";

export interface EventFilter {
  readonly model?: string | undefined;
  /** A session's token. */
  readonly session?: string | undefined;
  /** Prefixes of types; undefined or empty lets all pass. */
  readonly types?: readonly string[] | undefined;
  /** What the reader may see; undefined: all. */
  readonly sees?: ((topic: EventTopic) => boolean) | undefined;
}

/** Events between `requestedAfter` and `firstAvailable` are not kept, or nobody knows what they were. */
export interface EventGap {
  readonly requestedAfter: number;
  readonly firstAvailable: number;
}

export class EventCursor {
  readonly #log: EventLog;
  readonly #filter: EventFilter;
  #position: number;

  /** @param after the number of the last event that the reader has; undefined begins with what comes now. */
  constructor(log: EventLog, filter: EventFilter, after: number | undefined) {
    this.#log = log;
    this.#filter = filter;
    this.#position = after ?? log.last;
  }

  /** Resuming after this number repeats nothing and leaves nothing out. */
  get position(): number {
    return this.#position;
  }

  /** Whether there may be something for it now. */
  get isBehind(): boolean {
    return this.#position !== this.#log.last;
  }

  /**
   * Steps to the next event that passes the filter. It looks at a bounded number of events, so undefined while `isBehind`
   * says: ask again.
   */
  next(): KeptEvent | EventGap | undefined {
    const { floor, last } = this.#log;
    if (this.#position < floor || this.#position > last) {
      const requestedAfter = this.#position;
      this.#position = requestedAfter > last ? last : floor;
      return { requestedAfter, firstAvailable: this.#position + 1 };
    }
    for (let looked = 0; looked < limits.eventScan && this.#position < last; looked++) {
      this.#position += 1;
      if (passes(this.#log.headAt(this.#position), this.#filter)) return this.#log.at(this.#position);
    }
    return undefined;
  }
}

function passes(event: EventHead, { model, session, types, sees }: EventFilter): boolean {
  if (sees?.(event) === false) return false;
  if (session !== undefined && event.session !== session) return false;
  if (model !== undefined && event.model !== model) return false;
  return types === undefined || types.length === 0 || types.some((prefix) => event.type.startsWith(prefix));
}
