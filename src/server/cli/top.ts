/** `top`: the books, the largest users and what happens, drawn again and again. What it shows is `snapshot.ts`'s. */

import { TensordError } from "../../memory/error.ts";
import { toPrintableLine } from "../../memory/naming.ts";
import type { Api } from "./api.ts";
import { Observer, type Snapshot } from "./snapshot.ts";
import { toLines } from "./snapshot-text.ts";
import { toJson } from "./table.ts";
import { pause, type Running } from "./until-stopped.ts";

/** As they were written. */
export interface TopOptions {
  readonly interval?: string;
  readonly once?: boolean;
}

/** Shows one look at the server after another; `failure` says why there is no newer one. */
type Show = (snapshot: Snapshot, failure?: string) => Promise<void>;

const defaultIntervalMs = 2000;
/** Of each kind, where nothing limits the height. */
const plainRows = 10;

/** Prints until it is stopped, or once. @throws TensordError if the server does not answer at first. */
export async function top(api: Api, options: TopOptions, asJson: boolean, running: Running): Promise<void> {
  const intervalMs = options.interval === undefined ? defaultIntervalMs : parseIntervalMs(options.interval);
  const observer = new Observer(api);
  // Ctrl-C must not wait for a server that hangs.
  const stopped = toAbort(running.signal);
  const first = await Promise.race([observer.look(), stopped]);
  if (first === undefined) return;
  if (options.once) return running.write(`${asJson ? toJson(first) : toPlain(first)}\n`);
  const show = asJson
    ? toTold(running, (snapshot) => JSON.stringify(snapshot))
    : toTold(running, (snapshot) => `${toPlain(snapshot)}\n`);
  const watch = { observer, first, intervalMs, signal: running.signal, stopped };
  if (asJson || !process.stdout.isTTY) return watchOn(watch, show);
  await running.draw(enterScreen);
  try {
    await watchOn(watch, (snapshot, failure) => {
      // Some terminals do not say.
      const { columns, rows } = process.stdout;
      return running.draw(toScreen(snapshot, failure, columns || 80, rows || 24));
    });
  } finally {
    await running.draw(leaveScreen);
  }
}

function parseIntervalMs(text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (seconds >= 0.1 && seconds <= 3600) return 1000 * seconds;
  const detail = `Cannot read --interval ${JSON.stringify(text)}: it is no number of seconds, want 0.1 to 3600`;
  throw new TensordError("validation-failed", detail);
}

interface Watch {
  readonly observer: Observer;
  readonly first: Snapshot;
  readonly intervalMs: number;
  readonly signal: AbortSignal;
  /** Resolves when `signal` aborts. */
  readonly stopped: Promise<undefined>;
}

/** Looks again and again. A server that goes away is asked again: the next one may stand already. */
async function watchOn({ observer, first, intervalMs, signal, stopped }: Watch, show: Show): Promise<void> {
  let latest = first;
  await show(latest);
  while (!signal.aborted) {
    await pause(intervalMs, signal);
    const found = await Promise.race([look(observer), stopped]);
    if (found === undefined) return;
    if (typeof found !== "string") latest = found;
    await show(latest, typeof found === "string" ? found : undefined);
  }
}

/** A snapshot, or why there is none. */
async function look(observer: Observer): Promise<Snapshot | string> {
  try {
    return await observer.look();
  } catch (error) {
    if (error instanceof TensordError) return error.message;
    throw error;
  }
}

function toAbort(signal: AbortSignal): Promise<undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  if (signal.aborted) resolve(undefined);
  else signal.addEventListener("abort", () => resolve(undefined), { once: true });
  return promise;
}

/** For pipes: one text after another, and failures beside them. */
function toTold({ write, tell }: Running, toText: (snapshot: Snapshot) => string): Show {
  let wasThere = true;
  return async (snapshot, failure) => {
    if (failure === undefined) await write(`${toText(snapshot)}\n`);
    else if (wasThere) tell(`${failure}; asking again`);
    wasThere = failure === undefined;
  };
}

function toPlain(snapshot: Snapshot): string {
  return toLines(snapshot, plainRows).join("\n");
}

// The alternate screen, so that the terminal is as it was afterwards, and no cursor (xterm's control sequences).
const enterScreen = "\x1b[?1049h\x1b[?25l";
const leaveScreen = "\x1b[?25h\x1b[?1049l";

/** A whole screen over the one before, with as many rows of each kind as fit: each line cleared to its end, and below the last one. */
function toScreen(snapshot: Snapshot, failure: string | undefined, columns: number, rows: number): string {
  let lines = toLines(snapshot, rows);
  for (let listed = Math.floor(rows / 2); lines.length > rows && listed > 0; listed--)
    lines = toLines(snapshot, listed);
  const status = failure === undefined ? [] : [`no answer: ${failure}; asking again`];
  const shown = [...status, ...lines].slice(0, rows).map((line) => `${toPrintableLine(line).slice(0, columns)}\x1b[K`);
  return `\x1b[H${shown.join("\n")}\x1b[J`;
}
