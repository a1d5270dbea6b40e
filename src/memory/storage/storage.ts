/**
 * What the store asks of a kind of memory. One implementation owns one kind (`shm` here; memfd and CUDA join it) and
 * knows no books: it is told what to do, in the order that the store owes to crashes.
 */

import type { DataAccess, DataFile } from "./data-file.ts";

/** A file's identity, by which both sides see that they look at the same one. Strings, because they are 64 bits wide. */
export interface Identity {
  readonly dev: string;
  readonly ino: string;
}

/** What is to be made: `header` at the front of `byteSize` bytes. */
export interface Segment {
  readonly token: string;
  readonly byteSize: number;
  readonly header: Uint8Array;
}

export interface Usage {
  readonly leased: boolean;
  readonly written: boolean;
  /** The file's size now; another one than it was made with means that a worker truncated or extended it. */
  readonly byteSize: number;
}

/** What became of a public name that was looked at. */
export type NameState = "intact" | "relinked" | "replaced" | "blocked" | "lost";

/** How a region's file may be opened. */
export type Access = "open" | "sealed" | "sealed-stock-writable";

export interface Storage {
  /** Allocates the pages, in windows between which `signal` stops it, and writes the header. Nothing is kept yet. */
  allocate(segment: Segment, signal: AbortSignal): Promise<Identity>;
  /** Removes what `allocate` made and nobody kept. */
  discard(token: string, byteSize: number): Promise<void>;
  /** Commits the bytes: from here on they outlive the server. */
  keep(token: string): void;
  /** Gives the region its public name; never clobbers. */
  publish(token: string): void;
  /** Whether the public name stands and is a link to this very file. */
  isPublished(token: string, identity: Identity): boolean;
  /** Takes the public name away, if it still is this region's. */
  withdraw(token: string, identity: Identity): void;
  /** Who maps the region now, as the kernel knows it; undefined if its memory is gone. */
  usage(token: string): Usage | undefined;
  /** Frees a region that has no name and no lease; `hard-link` if something else still links it. */
  free(token: string, byteSize: number): Promise<"freed" | "hard-link">;
  setAccess(token: string, access: Access): void;
  /** Opens the region's file with the locks of a reader, or of a writer, until disposed. */
  openData(token: string, access: DataAccess): DataFile;
  /** Hashes `[dataOffset, byteSize)` of the region chunk by chunk, asking `check` between two. */
  hash(token: string, dataOffset: number, byteSize: number, check: () => void): Promise<readonly bigint[]>;
  /** Looks at the public name and mends it, in one synchronous turn. */
  inspectName(token: string, identity: Identity): NameState;
  room(): FileSystemRoom;
  /** What a region's size is rounded up to when it is charged. */
  readonly pageSize: number;
  /** Everything that is kept, as found at start. */
  kept(): readonly KeptFile[];
  /** Removes what earlier servers were making when they died. */
  clearUnkept(): Promise<void>;
  /** The first bytes of a kept file, at most `byteSize`. To be treated as hostile: workers could write them. */
  readPrefix(token: string, byteSize: number): Uint8Array;
}

export interface KeptFile {
  readonly token: string;
  readonly identity: Identity;
  readonly byteSize: number;
  readonly access: Access | undefined;
}

/** What the storage's file system has and has free. */
export interface FileSystemRoom {
  readonly totalBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  readonly usedInodes: number;
  readonly freeInodes: number;
}

/** What a storage does on its way through `allocate`, in this order; whoever opens the store may be told of each. */
export const allocationSteps = ["create.file-made", "create.window-allocated", "create.header-written"] as const;
export type OnAllocationStep = (step: (typeof allocationSteps)[number]) => void;
