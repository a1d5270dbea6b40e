/** What workers that have a module each take of the memory, as Python tells it. */

/** What `lib/workers.py` sums up of one way, in bytes: of all workers, or the most of one. */
export interface Taken {
  readonly weights: number;
  readonly private: number;
  readonly proportional: number;
  readonly private_by_module: number;
  readonly last_seconds: number;
  readonly answers: number;
}
