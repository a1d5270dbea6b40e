/** What the reserve is made with, what it tells, and the steps of its work. */

import type { HostLanes } from "../../lane.ts";
import type { PressureTexts } from "./pressure.ts";

/** What filling the reserve does, in this order; whoever opens the store may be told of each. */
export const reserveSteps = ["reserve.file-made", "reserve.window-grown", "reserve.filled", "reserve.removed"] as const;
export type OnReserveStep = (step: (typeof reserveSteps)[number]) => void;

export interface ReserveParts {
  /** What huge segments may take, beside the small ones; 0: there is nothing at all. */
  readonly budgetBytes: number;
  /** A file in `new/`. */
  readonly pathOf: (name: string) => string;
  /** What regions may still be charged. */
  readonly roomBytes: () => number;
  /** What the file system has free. */
  readonly freeBytes: () => number;
  /** Why there is none here, in words that end a sentence; undefined: only the operator may have said so. */
  readonly absence?: string | undefined;
  readonly lanes: HostLanes;
  readonly onStep: OnReserveStep | undefined;
  readonly onWarning: (message: string, error: unknown) => void;
  readonly readPressure?: (() => PressureTexts) | undefined;
  /** How long the start goes on without huge segments. */
  readonly hugeAfterMs?: number | undefined;
  /** Nice value of the thread that fills it. */
  readonly nice?: number | undefined;
  /** How long a stop waits. */
  readonly stopMs?: number | undefined;
}

/** What has happened since the start. */
export interface ReserveCounts {
  hits: { small: number; huge: number };
  misses: { small: number; huge: number };
  refills: number;
  hugeChunks: number;
  smallChunks: number;
  givenBackBytes: number;
}
