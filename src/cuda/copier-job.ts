/** What the server and a copier say to each other: the job is an argument of its command line, the answers are lines of JSON. */

import type { DriverRefusal } from "./device-calls.ts";

/** The command that is a copier. It is in no help: a server runs it. */
export const copierCommand = "device-copier";

/** The descriptors that a copier is started with. */
export const handleDescriptor = 3;
export const sourceDescriptor = 4;

export interface CopierJob {
  /** `fill`: the bytes of the source come into the device's memory. `hash`: what is there is read. */
  readonly deed: "fill" | "hash";
  /** Of the device. */
  readonly uuid: string;
  /** All of the memory that the handle is of. */
  readonly allocationBytes: number;
  /** How many of its first bytes are meant. */
  readonly byteSize: number;
  /** Where the bytes begin in the source. */
  readonly sourceOffset: number;
  /** The server's process. */
  readonly parent: number;
}

export type CopierLine =
  /** A chunk is done; they come in order. The hash is in decimal digits. */
  | { readonly hash: string; readonly bytes: number }
  /** All is done. */
  | { readonly done: true }
  | { readonly refusal: DriverRefusal }
  /** What else went wrong, in words. */
  | { readonly reason: string };
