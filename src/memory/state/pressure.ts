/**
 * Tells when a pool runs full, and when it has room again: the server's own, and each model's that has a limit. The two
 * marks lie apart, so that a pool at the brink does not tell at every change.
 */

import { limits } from "../limits.ts";
import type { Books } from "./books.ts";
import type { Model } from "./region.ts";

export interface Pressure {
  readonly level: "high" | "normal";
  /** The model whose limit is meant, or null for the server's. */
  readonly model: string | null;
  readonly usedBytes: number;
  readonly limitBytes: number;
}

export class PressureGauge {
  /** Pools that are under pressure: models, and null for the server. */
  readonly #high = new Set<Model | null>();

  /** What a charge to `model`, or a change of its limit, has to tell. */
  look(books: Books, model: Model): readonly Pressure[] {
    const server = this.#lookAt(null, books.usedBytes + books.drainingBytes, books.limitBytes - limits.journalBytes);
    const limitBytes = model.memoryLimitBytes ?? Number.POSITIVE_INFINITY;
    return [...server, ...this.#lookAt(model, model.usedBytes + model.drainingBytes, limitBytes)];
  }

  #lookAt(model: Model | null, usedBytes: number, limitBytes: number): readonly Pressure[] {
    const isHigh = this.#high.has(model);
    const share = limitBytes === 0 ? 100 : (100 * usedBytes) / limitBytes;
    if (isHigh ? share >= limits.pressureLowPercent : share < limits.pressureHighPercent) return [];
    if (isHigh) this.#high.delete(model);
    else this.#high.add(model);
    return [{ level: isHigh ? "normal" : "high", model: model?.name ?? null, usedBytes, limitBytes }];
  }
}
