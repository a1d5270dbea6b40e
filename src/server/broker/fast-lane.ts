/**
 * The Worker's side of tickets: a plain attach to a region whose ticket is good is answered without the event loop, which hears of it.
 * Whatever is not plain, or not as it was, is left to the loop: it knows what to say.
 */

import { closeSync, openSync } from "node:fs";
import { type LeaseKind, leaseKinds, tryLease } from "../../memory/os/kernel-lease.ts";
import { readUnread, sendMessage } from "../../memory/os/libc-unix.ts";
import type { Frame } from "./frames.ts";
import type { Ticket } from "./tickets.ts";

/** What was handed out. */
export interface Handed {
  readonly region: string;
  readonly isWriter: boolean;
  readonly lease: LeaseKind;
}

export class FastLane {
  readonly #numbers: Int32Array;
  readonly #byRegion = new Map<string, Ticket>();
  readonly #byPlace = new Map<number, Ticket>();

  constructor(memory: SharedArrayBuffer) {
    this.#numbers = new Int32Array(memory);
  }

  /** In its place was another one, which is void. */
  keep(ticket: Ticket): void {
    const before = this.#byPlace.get(ticket.place);
    if (before !== undefined && this.#byRegion.get(before.region) === before) this.#byRegion.delete(before.region);
    this.#byPlace.set(ticket.place, ticket);
    this.#byRegion.set(ticket.region, ticket);
  }

  /** @returns undefined if nothing was answered. */
  tryAnswer(connection: number, frame: Frame, mayWrite: boolean): Handed | undefined {
    const asked = toPlain(frame);
    const ticket = this.#byRegion.get(asked?.region ?? "");
    if (asked === undefined || ticket === undefined || !this.#isGood(ticket)) return undefined;
    if (asked.isWriter && !(ticket.isWritable && mayWrite)) return undefined;
    // What is on its way has bounds, which the loop knows.
    if (readUnread(connection) > 0) return undefined;
    const fd = tryOpen(ticket.path, asked.isWriter);
    if (fd === undefined) return undefined;
    try {
      if (!tryLease(fd, asked.lease, asked.isWriter) || !this.#isGood(ticket)) return undefined;
      const text = `{"id":${frame.id},"ok":true,"region":${ticket.text},"leased":true,"fds":["region"]}`;
      return sendMessage(connection, text, [fd]) === "sent" ? asked : undefined;
    } finally {
      closeSync(fd);
    }
  }

  #isGood({ place, number }: Ticket): boolean {
    return Atomics.load(this.#numbers, place) === number;
  }
}

/** One description of a region by its id, and nothing beside; undefined if more is asked, or something wrong. */
function toPlain(frame: Frame): Handed | undefined {
  const { id: _, op, region, access, lease = "consumer", count = 1, ...others } = frame;
  if (op !== "attach" || typeof region !== "string" || count !== 1) return undefined;
  if ((access !== "ro" && access !== "rw") || !isLeaseKind(lease)) return undefined;
  if (Object.keys(others).length > 0) return undefined;
  return { region, isWriter: access === "rw", lease };
}

function isLeaseKind(word: unknown): word is LeaseKind {
  return leaseKinds.some((kind) => kind === word);
}

/** Without a descriptor left, or with the file gone, the loop has its own means. */
function tryOpen(path: string, isWriter: boolean): number | undefined {
  try {
    return openSync(path, isWriter ? "r+" : "r");
  } catch {
    return undefined;
  }
}
