/**
 * Metrics of requests. The transports tell it of each one; every label has a bounded set of values. Counted here, in numbers: a library
 * that finds a series by its labels makes texts of them each time, which every request would pay for.
 */

import type { Metric } from "prom-client";
import Counter from "prom-client/lib/counter.js";
import type Registry from "prom-client/lib/registry.js";

const methods: readonly string[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** From a read out of the books to an allocation of many GiB. */
const secondsBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30];
const secondsName = "tensord_http_request_duration_seconds";

/** Of one operation. */
interface Durations {
  /** By bucket, each without those below it; the last is of what is longer than all. */
  readonly counts: number[];
  sum: number;
}

interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

export class HttpMetrics {
  /** Answers by method, and by the first digit of their status. */
  readonly #answers = new Map<string, number[]>();
  readonly #durations = new Map<string, Durations>();

  constructor(registry: Registry) {
    const answers = this.#answers;
    // It registers itself.
    new Counter({
      name: "tensord_http_requests_total",
      help: "Requests answered, by method and class of status.",
      labelNames: ["method", "status"],
      registers: [registry],
      collect() {
        this.reset();
        for (const [method, byClass] of answers) {
          byClass.forEach((count, digit) => {
            if (count > 0) this.inc({ method, status: `${digit}xx` }, count);
          });
        }
      },
    });
    const seconds = {
      name: secondsName,
      help: "Time from a request to its answer, by operationId.",
      type: "histogram",
      aggregator: "sum",
      get: () => Promise.resolve({ ...seconds, values: [...this.#samples()] }),
    };
    registry.registerMetric(seconds as unknown as Metric);
  }

  /**
   * Counts one answer.
   * @param operation its operationId, or `none` where no operation is: clients must not be able to make up others.
   */
  observe(operation: string, method: string, status: number, seconds: number): void {
    const known = methods.includes(method) ? method : "other";
    let byClass = this.#answers.get(known);
    if (byClass === undefined) {
      byClass = new Array<number>(10).fill(0);
      this.#answers.set(known, byClass);
    }
    const digit = Math.floor(status / 100);
    byClass[digit] = (byClass[digit] ?? 0) + 1;
    let durations = this.#durations.get(operation);
    if (durations === undefined) {
      durations = { counts: new Array<number>(secondsBuckets.length + 1).fill(0), sum: 0 };
      this.#durations.set(operation, durations);
    }
    let bucket = 0;
    while (bucket < secondsBuckets.length && seconds > (secondsBuckets[bucket] as number)) bucket += 1;
    durations.counts[bucket] = (durations.counts[bucket] ?? 0) + 1;
    durations.sum += seconds;
  }

  /** The histogram as it is sent: what a bucket has is also in those above it. */
  *#samples(): Generator<Sample> {
    for (const [operation, { counts, sum }] of this.#durations) {
      let count = 0;
      for (const [bucket, more] of counts.entries()) {
        count += more;
        const labels = { le: secondsBuckets[bucket] ?? "+Inf", operation };
        yield { metricName: `${secondsName}_bucket`, labels, value: count };
      }
      yield { metricName: `${secondsName}_sum`, labels: { operation }, value: sum };
      yield { metricName: `${secondsName}_count`, labels: { operation }, value: count };
    }
  }
}
