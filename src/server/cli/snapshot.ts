/** What `top` shows, as one server tells it at one moment. Bounded, however much there is. */

import type { Model, RegionDetail, RegionFacts, Session, Stats } from "./answers.ts";
import type { Api } from "./api.ts";
import { readKept } from "./events.ts";
import { type Event, positionOf } from "./follow.ts";

export interface Snapshot {
  readonly time: string;
  readonly stats: Stats;
  /** Those that use most first. */
  readonly models: readonly Model[];
  /** Those that own most first, of the oldest ones on the first page of the list. */
  readonly sessions: readonly Session[];
  /** The largest first, of the oldest ones on the first page of the list. */
  readonly regions: readonly RegionFacts[];
  /** Whether there are regions beyond that page, which may be larger. */
  readonly more_regions: boolean;
  readonly draining: readonly RegionDetail[];
  /** The newest last. */
  readonly events: readonly Event[];
}

const pageItems = 1000;
/** The most of anything that a snapshot holds. */
const shownItems = 20;

/** Takes snapshots, and remembers which events it has seen. */
export class Observer {
  readonly #api: Api;
  #events: Event[] = [];
  #after: string | undefined;

  constructor(api: Api) {
    this.#api = api;
  }

  async look(): Promise<Snapshot> {
    const stats = await this.#api.call<Stats>("GET", "/v1/stats");
    const models = await this.#page<Model>(`/v1/models?limit=${pageItems}`);
    const sessions = await this.#page<Session>(`/v1/sessions?limit=${pageItems}`);
    const regions = await this.#page<RegionFacts>(`/v1/regions?limit=${pageItems}`);
    const draining = await this.#page<RegionFacts>(`/v1/regions?state=draining&limit=${shownItems}`);
    return {
      time: new Date().toISOString(),
      stats,
      models: models.items.toSorted((a, b) => toUse(b) - toUse(a)).slice(0, shownItems),
      sessions: sessions.items.toSorted((a, b) => b.used_bytes - a.used_bytes).slice(0, shownItems),
      regions: regions.items.toSorted((a, b) => b.storage.byte_size - a.storage.byte_size).slice(0, shownItems),
      more_regions: regions.next_cursor !== null,
      draining: (await Promise.all(draining.items.map(({ id }) => this.#api.findRegion(id)))).flatMap(
        (found) => found ?? [],
      ),
      events: await this.#newest(),
    };
  }

  #page<Item>(path: string): Promise<{ items: Item[]; next_cursor: string | null }> {
    return this.#api.page(path);
  }

  async #newest(): Promise<readonly Event[]> {
    const query = new URLSearchParams(this.#after === undefined ? {} : { after: this.#after });
    for await (const event of readKept(this.#api, query)) {
      this.#after = positionOf(event) ?? this.#after;
      this.#events.push(event);
      if (this.#events.length > shownItems) this.#events.shift();
    }
    return [...this.#events];
  }
}

function toUse({ pools }: Model): number {
  return pools.reduce((sum, { used_bytes, draining_bytes }) => sum + used_bytes + draining_bytes, 0);
}
