/** What commands share that run until somebody stops them, by a signal or by reading no more. */

import { setTimeout } from "node:timers/promises";
import { toPrintable } from "../../memory/naming.ts";
import { tell } from "./output.ts";

export interface Running {
  /** Aborts at Ctrl-C, SIGTERM, SIGHUP, and when nobody reads the output any more. A second Ctrl-C ends the process. */
  readonly signal: AbortSignal;
  /** To standard output, with what a terminal would obey as escapes. Resolves once it is written. */
  readonly write: (text: string) => Promise<void>;
  /** The same as it is: for who draws a screen, and has escaped what it shows. */
  readonly draw: (text: string) => Promise<void>;
  /** A word beside the output, to standard error. */
  readonly tell: (text: string) => void;
}

export function untilStopped(): Running {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => controller.abort());
  async function draw(text: string): Promise<void> {
    try {
      await Bun.write(Bun.stdout, text);
    } catch (error) {
      // `… | head` has what it wanted; or the terminal was closed.
      if (!["EPIPE", "EIO"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      controller.abort();
    }
  }
  return { signal: controller.signal, write: (text) => draw(toPrintable(text)), draw, tell };
}

/** Resolves after that time, or when `signal` aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await setTimeout(ms, undefined, { signal }).catch(() => undefined);
}
