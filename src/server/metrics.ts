/**
 * The server's metrics, in a registry of its own. What it counts is here and in the files beside it; `docs/operating.md` has the table, which a test holds against the registry.
 */

import Gauge from "prom-client/lib/gauge.js";
import Registry from "prom-client/lib/registry.js";
import type { Store } from "../memory/state/store.ts";
import { defineElasticMetrics } from "./metrics-elastic.ts";
import { type MetricsText, toMetricsText } from "./metrics-format.ts";
import { HttpMetrics } from "./metrics-http.ts";
import { defineProcessMetrics } from "./metrics-process.ts";
import { defineReserveMetrics } from "./metrics-reserve.ts";
import { defineStoreMetrics } from "./metrics-store.ts";

export class Metrics {
  readonly http: HttpMetrics;
  readonly #registry = new Registry();
  /** Each brings a group of metrics up to date. */
  readonly #updates: (() => void | Promise<void>)[];

  /** Of the process alone; what is in the store is added by `watch`, once there is one. */
  constructor(version: string) {
    const info = new Gauge({
      name: "tensord_build_info",
      help: "Always 1; the label is the server's version.",
      labelNames: ["version"],
      registers: [this.#registry],
    });
    info.set({ version }, 1);
    this.#updates = [defineProcessMetrics(this.#registry)];
    this.http = new HttpMetrics(this.#registry);
  }

  /** Adds what the store's books say. */
  watch(store: Store): void {
    this.#updates.push(
      defineStoreMetrics(this.#registry, store),
      defineReserveMetrics(this.#registry, store.reserve),
      defineElasticMetrics(this.#registry, store),
    );
  }

  /** @param accept the header of the request, which chooses the format. */
  async render(accept: string | null): Promise<MetricsText> {
    for (const update of this.#updates) await update();
    return await toMetricsText(this.#registry, accept);
  }
}
