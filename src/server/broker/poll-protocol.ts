/** What the broker's two halves say to each other: what the Worker reports, and the words and shared numbers that it is told by. */

import type { Peer } from "../../memory/os/libc-unix.ts";
import type { Handed } from "./fast-lane.ts";
import type { Frame } from "./frames.ts";

/** What the Worker waits on. */
export interface PollTask {
  readonly epoll: number;
  /** The end of a pipe that brings what `toWord` makes. */
  readonly words: number;
  /** `Int32Array` of `shared`. */
  readonly shared: SharedArrayBuffer;
  /** What tickets are good, as `tickets.ts` has it. */
  readonly tickets: SharedArrayBuffer;
  readonly patience: Patience;
}

/** How long a connection may say nothing at first, and read nothing of what it was sent; and how often that is looked at. */
export interface Patience {
  readonly helloMs: number;
  readonly stallMs: number;
  readonly lookMs: number;
}

/** What both sides see of each other: how many connections may be open, the listener's descriptor, what was handed out and heard of. */
export const shared = { most: 0, listener: 1, heard: 2, length: 3 } as const;

/** What the poll says of its own descriptors; every other number is a connection's slot. */
export const pollData = { listener: 2 ** 32 - 1, words: 2 ** 32 - 2 } as const;

/** Why a connection is over: its peer ended it, or, in words, what it did that we end it for. */
export type Ending =
  | { readonly kind: "peer" }
  | { readonly kind: "malformed" | "crowded" | "silent" | "stalled"; readonly why: string };

export type PollEvent =
  /** The Worker runs: said once, before anything else. */
  | { readonly kind: "up" }
  | { readonly kind: "opened"; readonly slot: number; readonly fd: number; readonly peer: Peer }
  | { readonly kind: "asked"; readonly slot: number; readonly frame: Frame }
  /** Regions were handed out by tickets, and answered. */
  | { readonly kind: "handed"; readonly all: readonly HandedTo[] }
  /** From here on nobody but the owner uses the descriptor. */
  | { readonly kind: "ended"; readonly slot: number; readonly ending: Ending }
  /** As it was told to: no descriptor is used any more. */
  | { readonly kind: "stopped" };

/**
 * What the owner tells: a request was answered, and from `readable` or `writable` on tickets count there; it has to be asked again once its answer has
 * room; its slot is free; all is over; or, in place of a slot the length of its JSON that follows, a ticket.
 */
export const words = ["answered", "readable", "writable", "full", "closed", "stop", "ticket"] as const;
export type Word = (typeof words)[number];

export function toWord(word: Word, slot: number): number {
  return slot * words.length + words.indexOf(word);
}

/** As it goes through the pipe. */
export function toBytes(word: Word, slot: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(toWord(word, slot));
  return bytes;
}

export interface HandedTo extends Handed {
  readonly slot: number;
}
