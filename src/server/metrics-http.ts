/** Metrics of requests. The transports tell it of each one; every label has a bounded set of values. */

import Counter from "prom-client/lib/counter.js";
import Histogram from "prom-client/lib/histogram.js";
import type Registry from "prom-client/lib/registry.js";

const methods: readonly string[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** From a read out of the books to an allocation of many GiB. */
const secondsBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30];

export class HttpMetrics {
  readonly #requests: Counter<"method" | "status">;
  readonly #seconds: Histogram<"operation">;

  constructor(registry: Registry) {
    this.#requests = new Counter({
      name: "tensord_http_requests_total",
      help: "Requests answered, by method and class of status.",
      labelNames: ["method", "status"],
      registers: [registry],
    });
    this.#seconds = new Histogram({
      name: "tensord_http_request_duration_seconds",
      help: "Time from a request to its answer, by operationId.",
      labelNames: ["operation"],
      buckets: secondsBuckets,
      registers: [registry],
    });
  }

  /**
   * Counts one answer.
   * @param operation its operationId, or `none` where no operation is: clients must not be able to make up others.
   */
  observe(operation: string, method: string, status: number, seconds: number): void {
    this.#requests.inc({
      method: methods.includes(method) ? method : "other",
      status: `${Math.floor(status / 100)}xx`,
    });
    this.#seconds.observe({ operation }, seconds);
  }
}
