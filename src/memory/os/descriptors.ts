/**
 * Spare descriptors. Connections are taken by the runtime, which takes all there are; so the process lowers its own limit by
 * some, and raises it for the moment in which work of its own opens a file: the runtime takes none in the middle of a turn. The
 * kernel holds everybody to the limit of that moment, and what is open stays open.
 */

import { type SystemError, TensordError } from "../error.ts";
import { type DescriptorLimit, readDescriptorLimit, setDescriptorLimit } from "./libc.ts";

/** What was set aside. */
export interface SpareDescriptors {
  /** What the process may have. */
  readonly limit: number;
  /** Kept from connections. */
  readonly spare: number;
  readonly hard: bigint;
}

/** How long what is opened stays open: a file for the length of a transfer may take half of the spare ones at most. */
export type Stay = "short" | "long";

let aside: SpareDescriptors | undefined;

/**
 * Keeps `spare` descriptors from everything that does not go through `withSpare`, until disposed.
 * @returns undefined if the limit has no end, or leaves nothing to share.
 */
export function setAside(spare: number): (SpareDescriptors & Disposable) | undefined {
  const { soft, hard } = readDescriptorLimit();
  if (soft > BigInt(Number.MAX_SAFE_INTEGER) || soft <= BigInt(spare)) return undefined;
  const record: SpareDescriptors = { limit: Number(soft), spare, hard };
  aside = record;
  setDescriptorLimit(toLimit(record, 0));
  return {
    ...record,
    [Symbol.dispose]: () => {
      aside = undefined;
      setDescriptorLimit(toLimit(record, spare));
    },
  };
}

function toLimit({ limit, spare, hard }: SpareDescriptors, given: number): DescriptorLimit {
  return { soft: BigInt(limit - spare + given), hard };
}

/** Runs `call`, which opens something, and gives it of the spare descriptors if there is no other. */
export function withSpare<Result>(call: () => Result, stay: Stay = "short"): Result {
  try {
    return call();
  } catch (error) {
    if (aside === undefined || !isOutOfDescriptors(error)) throw error;
    using _ = raise(aside, stay);
    return call();
  }
}

/** Gives the spare ones to the whole process until disposed: for what others open, while nobody connects. */
export function raiseLimit(stay: Stay): Disposable | undefined {
  return aside && raise(aside, stay);
}

/** What is given now, and to how many. */
const given = new Map<number, number>();

function raise(record: SpareDescriptors, stay: Stay): Disposable {
  const count = stay === "short" ? record.spare : Math.floor(record.spare / 2);
  given.set(count, (given.get(count) ?? 0) + 1);
  const set = () => setDescriptorLimit(toLimit(record, Math.max(0, ...given.keys())));
  set();
  return {
    [Symbol.dispose]: () => {
      const left = (given.get(count) ?? 0) - 1;
      if (left > 0) given.set(count, left);
      else given.delete(count);
      // Whoever set them aside may have taken that back meanwhile.
      if (aside === record) set();
    },
  };
}

/** Whether the system said that this process, or the whole machine, has no descriptor left. */
export function isOutOfDescriptors(error: unknown): boolean {
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  return code === "EMFILE" || code === "ENFILE";
}

/** The failure of the table for `error`, if it says so. Its cause stays with it. */
export function toOutOfDescriptors(error: unknown): TensordError | undefined {
  if (error instanceof TensordError || !isOutOfDescriptors(error)) return undefined;
  const { code: errno } = error as NodeJS.ErrnoException | SystemError;
  return errno === "ENFILE"
    ? new TensordError(
        "out-of-descriptors",
        "Cannot open a file: this machine has no file descriptor left (ENFILE)",
        { errno, hint: "Raise fs.file-max (sysctl) on the server's host, or end what holds so many files there." },
        { cause: error },
      )
    : outOfDescriptors("Cannot open a file", { cause: error });
}

/** @param what could not be done. */
export function outOfDescriptors(what: string, options?: { readonly cause: unknown }): TensordError {
  const limit = aside?.limit;
  const most = limit === undefined ? "" : `, ${limit} are the most`;
  return new TensordError(
    "out-of-descriptors",
    `${what}: the server has no file descriptor left${most}`,
    {
      errno: "EMFILE",
      ...(limit === undefined ? {} : { limit }),
      hint:
        "Ask again in a moment; close connections that are not needed. For more at once raise the server's limit: " +
        "LimitNOFILE= in systemd, --ulimit nofile= in Docker, ulimit -n in a shell.",
    },
    options,
  );
}
