/**
 * Tells when a pool runs full, and when that is over: the server's own, and each model's that has a limit. The two
 * marks lie apart, so that a pool at the brink does not tell at every change.
 */

import { limits } from "../limits.ts";
import type { Books } from "./books.ts";
import type { Pool } from "./pool.ts";
import type { Model } from "./region.ts";

export interface Pressure {
  readonly level: "high" | "normal";
  readonly pool: string;
  /** The model whose limit is meant, or null for the server's. */
  readonly model: string | null;
  readonly usedBytes: number;
  readonly limitBytes: number;
}

export class PressureGauge {
  readonly #high = new Set<Pool>();

  /** What a charge to `model`, or a change of its limits, has to tell. */
  look(books: Books, model: Model): readonly Pressure[] {
    const told: Pressure[] = [];
    for (const pool of books.pools.all) this.#lookAt(pool, null, told);
    for (const pool of model.pools.all) this.#lookAt(pool, model.name, told);
    return told;
  }

  #lookAt(pool: Pool, model: string | null, told: Pressure[]): void {
    const { name, takenBytes, usableBytes } = pool;
    const isHigh = this.#high.has(pool);
    const share = usableBytes === 0 ? 100 : (100 * takenBytes) / usableBytes;
    if (isHigh ? share >= limits.pressureLowPercent : share < limits.pressureHighPercent) return;
    if (isHigh) this.#high.delete(pool);
    else this.#high.add(pool);
    const level = isHigh ? "normal" : "high";
    told.push({ level, pool: name, model, usedBytes: takenBytes, limitBytes: usableBytes });
  }
}
