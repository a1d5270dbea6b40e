/** Pools: a limit and its sums each, of host memory or of the memory of one device. The server has them, and every model. */

import { TensordError } from "../error.ts";
import type { PoolLimit } from "../journal/journal-rows.ts";
import { hostPool, quote } from "../naming.ts";

/** What the memory of a device may be taken of, over all models. */
export interface DevicePool {
  /** The device's UUID. */
  readonly name: string;
  /** null: its driver has not told yet how much it has. */
  readonly limitBytes: number | null;
}

export class Pool {
  readonly name: string;
  /** What regions may take together, or null without a bound. One below what is used stops further allocations. */
  limitBytes: number | null;
  /** Bytes charged, the draining ones apart. */
  usedBytes = 0;
  drainingBytes = 0;
  /** What of the limit is not for regions. */
  readonly setAsideBytes: number;

  constructor(name: string, limitBytes: number | null, setAsideBytes = 0) {
    this.name = name;
    this.limitBytes = limitBytes;
    this.setAsideBytes = setAsideBytes;
  }

  /** What regions could take if there were none; infinite without a limit. */
  get usableBytes(): number {
    return this.limitBytes === null ? Number.POSITIVE_INFINITY : Math.max(0, this.limitBytes - this.setAsideBytes);
  }

  get takenBytes(): number {
    return this.usedBytes + this.drainingBytes;
  }

  /** What may still be charged. */
  get freeBytes(): number {
    return Math.max(0, this.usableBytes - this.takenBytes);
  }
}

export class Pools {
  readonly #byName: Map<string, Pool>;

  constructor(pools: readonly Pool[]) {
    this.#byName = new Map(pools.map((pool) => [pool.name, pool]));
  }

  /** A model's: of host memory always. */
  static of(limits: readonly PoolLimit[]): Pools {
    const pools = new Pools(limits.map(({ pool, limitBytes }) => new Pool(pool, limitBytes)));
    pools.get(hostPool);
    return pools;
  }

  /** The pool of that name; one that nobody has bounded or charged yet is empty and has no limit. */
  get(name: string): Pool {
    const pool = this.#byName.get(name) ?? new Pool(name, null);
    this.#byName.set(name, pool);
    return pool;
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** @throws TensordError `validation-failed` if it is none of these; `what` was to be done, to that pool. */
  check(name: string, what: string): void {
    if (this.has(name)) return;
    const names = [...this.#byName.keys()].join(", ");
    throw new TensordError("validation-failed", `Cannot ${what} ${quote(name)}: this server has the pools ${names}`, {
      hint: "A pool is `host`, or a device by its UUID, as /v1/stats lists them.",
    });
  }

  get all(): Iterable<Pool> {
    return this.#byName.values();
  }
}
