/** The events as pages tell them: what a subscriber's frames are held against. */

import type { EventFrame } from "./event-frame.ts";
import type { ServerApi } from "./server-api.ts";

interface Page {
  readonly items: EventFrame[];
  readonly next_after: string;
}

/** Reads on from page to page, and keeps everything. Ask it often enough, and it has what the ring ever told. */
export class EventPages {
  readonly frames: EventFrame[] = [];
  /** Where the next page begins; undefined before the first. */
  lastId: string | undefined;

  /** Reads to the newest event. @returns its id. */
  async read(api: ServerApi): Promise<string> {
    for (;;) {
      const after: string = this.lastId === undefined ? "" : `&after=${this.lastId}`;
      const page = await api.call<Page>("GET", `/v1/events?limit=1000${after}`);
      this.frames.push(...page.items);
      this.lastId = page.next_after;
      if (page.items.length === 0) return page.next_after;
    }
  }
}

/** The newest event's id. */
export function readLastId(api: ServerApi): Promise<string> {
  return new EventPages().read(api);
}
