/** How long elastic pools wait for what, one line each. What is bounded is in `src/memory/limits.ts`. */

export const thresholds = {
  /** What leaves for longer than this is overdue. */
  overdueMs: 10_000,
  /** How often a worker whose connection has ended is looked for, while something waits for it: soon at first, then seldom. */
  lookMs: 20,
  lookMaxMs: 1000,
  /** A page that was not given back is tried again after this at first, then after twice as long each time. */
  retryMs: 100,
  retryMaxMs: 30_000,
} as const;
