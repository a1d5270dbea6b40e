/** What the Python halves of the benchmark `peers` print, and how it is kept: medians and spreads, small enough to be committed. */

import type { Machine } from "../lib/machine.ts";
import { percentile } from "../lib/statistics.ts";

/** Times of one work by system, in turns: the sample of one index is of one round. */
export type Samples = Readonly<Record<string, readonly number[]>>;

/** What one system took, and what that is over the reference of the same rounds. */
export interface Figure {
  readonly system: string;
  /** Median, in the work's unit. */
  readonly time: number;
  /** Median of the rounds' ratios to the reference, and their quartiles. */
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

/** One work of one size in one placement. */
export interface Work {
  /** What was done, in words. */
  readonly what: string;
  readonly unit: "ms" | "µs";
  /** The system that the others are divided by. */
  readonly reference: string;
  readonly rounds: number;
  readonly figures: readonly Figure[];
}

/** One question, with its works. */
export interface Part {
  readonly name: PartName;
  readonly works: readonly Work[];
  /** Systems that do not run here, and why. */
  readonly absent: Readonly<Record<string, string>>;
  /** Cores that others used before it and after it. */
  readonly othersBefore: number;
  readonly othersAfter: number;
}

export const partNames = ["create-write", "attach", "hand-off", "model"] as const;
export type PartName = (typeof partNames)[number];

export interface Measured {
  readonly at: string;
  readonly machine: Machine;
  readonly details: { readonly parts: readonly Part[]; readonly isQuiet: boolean };
}

/** The median and the quartiles of each system, over the reference in the same round. */
export function toWork(what: string, unit: Work["unit"], reference: string, samples: Samples): Work {
  const base = samples[reference] ?? [];
  const figures = Object.entries(samples)
    .filter(([, times]) => times.length > 0)
    .map(([system, times]) => {
      const ratios = times.map((time, round) => time / (base[round] ?? Number.NaN)).toSorted((a, b) => a - b);
      const sorted = times.toSorted((a, b) => a - b);
      return {
        system,
        time: shorten(percentile(sorted, 0.5)),
        ratio: shorten(percentile(ratios, 0.5)),
        low: shorten(percentile(ratios, 0.25)),
        high: shorten(percentile(ratios, 0.75)),
      };
    });
  return { what, unit, reference, rounds: base.length, figures };
}

/** Three digits: the others are noise, and would change at each run. */
function shorten(value: number): number {
  return Number(value.toPrecision(3));
}
