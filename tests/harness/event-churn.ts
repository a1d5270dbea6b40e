/** Regions that come and go at random, and what their client was promised: each promise is one event. */

import type { Random } from "./instance-random.ts";
import { type NewRegion, NoAnswer, Refused, type Region, type ServerApi } from "./server-api.ts";

const regionsMost = 8;
const hour = 3_600_000;

export class EventChurn {
  readonly #name: string;
  readonly #random: Random;
  readonly #known = new Map<string, Region>();
  /** `<type> <region>` of each change that was acknowledged. */
  readonly promised: string[] = [];

  constructor(name: string, random: Random) {
    this.#name = name;
    this.#random = random;
  }

  /** Works until a request has no answer, or the server stops. */
  async work(api: ServerApi): Promise<void> {
    for (;;) {
      try {
        await this.#step(api);
      } catch (error) {
        if (error instanceof NoAnswer) return;
        if (!(error instanceof Refused)) throw error;
        if (error.problem.code === "shutting-down") return;
        // A request without an answer before a restart may have been carried out all the same.
        if (!["region-not-found", "region-sealed", "region-draining"].includes(error.problem.code)) throw error;
      }
    }
  }

  #promise(word: string, id: string): void {
    this.promised.push(`tensord.region.${word} ${id}`);
  }

  async #step(api: ServerApi): Promise<void> {
    const random = this.#random;
    const all = [...this.#known.values()];
    if (all.length === 0 || (all.length < regionsMost && random.isTrue(0.4))) return this.#create(api);
    const one = random.pick(all);
    if (one.state === "open" && random.isTrue(0.4)) return this.#seal(api, one);
    if (random.isTrue(0.5)) {
      await api.call("PATCH", `/v1/regions/${one.id}`, { labels: { value: String(random.integer(0, 1e9)) } });
      return;
    }
    this.#known.delete(one.id);
    if ((await api.delete(one.id)).state === "deleted") this.#promise("deleted", one.id);
  }

  async #create(api: ServerApi): Promise<void> {
    const random = this.#random;
    // Above 1 MiB the pages are freed in the background.
    const byte_size = random.isTrue(0.2) ? 3 * 2 ** 20 : random.integer(0, 20_000);
    const request: NewRegion = random.isTrue(0.5)
      ? { byte_size, ttl_ms: random.isTrue(0.2) ? random.integer(1, 50) : hour }
      : { name: `${this.#name}-${random.integer(0, 1)}`, byte_size, persist: true, if_exists: "replace" };
    const region = await api.create(request);
    this.#known.set(region.id, region);
    this.#promise("allocated", region.id);
  }

  async #seal(api: ServerApi, { id }: Region): Promise<void> {
    // Without an answer nobody knows its state, so it is left alone.
    this.#known.delete(id);
    this.#known.set(id, await api.seal(id));
    this.#promise("sealed", id);
  }
}
