/** What callers may ask of regions. The wire spells it the same, in its own case. */

import type { RegionDescriptor } from "./http/wire.ts";
import type { AccessOptions } from "./regions/mapper.ts";
import type { WaitOptions } from "./waiting.ts";

export const defaultModel = "default";

/** A region is named by its name, model and version where it is looked up, and by one of these elsewhere. */
export type AnyRegion = string | { readonly id: string };

/**
 * What decides a region's end. `ttlMs`: so long after now. `lingerMs`: so long after the last process let go of it; 0 hands
 * it off: it ends when its consumer lets go, or if none came within `handoffMs` (a minute). `persist`: only a `delete`, and
 * it needs a name. None of them: this client's session.
 */
export type Owner =
  | (Pick<NoOwner, "lingerMs" | "handoffMs" | "persist"> & { readonly ttlMs: number })
  | (Pick<NoOwner, "ttlMs" | "persist"> & { readonly lingerMs: number; readonly handoffMs?: number | undefined })
  | (Pick<NoOwner, "ttlMs" | "lingerMs" | "handoffMs"> & { readonly persist: true })
  | NoOwner;

interface NoOwner {
  readonly ttlMs?: undefined;
  readonly lingerMs?: undefined;
  readonly handoffMs?: undefined;
  readonly persist?: undefined;
}

interface CommonOptions extends WaitOptions {
  readonly model?: string | undefined;
  /** Which build of the name; versions stand side by side. Default: the empty one. */
  readonly version?: string | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** Once it is sealed and nobody maps it, it may go to make room for others. */
  readonly evictable?: boolean | undefined;
  /** Without room: an error (the default), to evict what may go, or to wait for it as well. */
  readonly onFull?: "fail" | "evict" | "wait" | undefined;
  /** How long `onFull: "wait"` waits. Default: 30 s. */
  readonly deadlineMs?: number | undefined;
}

export type CreateOptions = Owner &
  CommonOptions & {
    /** What a taken name means: an error, the region that is there, or to take the name over when this one is sealed. */
    readonly ifExists?: "fail" | "attach" | "replace" | undefined;
  };

/** Without an owner the region lingers for 10 minutes. */
export type GetOrCreateOptions = Owner &
  CommonOptions & {
    /** How long to wait for another builder. Default: without end. */
    readonly timeoutMs?: number | undefined;
    /** Records a checksum at the seal. */
    readonly checksum?: boolean | undefined;
    /** As for `attach`, for those who did not build. */
    readonly strict?: boolean | undefined;
  };

export type RingOptions = Owner &
  CommonOptions & {
    /** 1 to 4096. Default: 16. */
    readonly slots?: number | undefined;
    /** The largest tensor; rounded up to a multiple of 8. Default: 8 MiB. */
    readonly slotBytes?: number | undefined;
    /** Default: none, since its tensors are reached by their references. */
    readonly name?: string | null | undefined;
  };

export interface AttachOptions extends AccessOptions, WaitOptions {
  readonly model?: string;
  /** This one. Default: the newest that is sealed, or, where none is, the newest, in every moment of a wait. */
  readonly version?: string;
  /** How long to wait: a reader until the region is there *and sealed*, a writer until it is there. */
  readonly timeoutMs?: number;
}

/** Where a region is looked up by its name. */
export interface GetOptions extends WaitOptions {
  readonly model?: string;
  /** This one. Default: the newest that is sealed, or, where none is, the newest. */
  readonly version?: string;
}

export interface ListOptions extends WaitOptions {
  readonly model?: string;
  readonly name?: string;
  /** Only this one of the name's. Default: all. */
  readonly version?: string;
  readonly state?: RegionDescriptor["state"];
  /** The session that ends them, or its id. */
  readonly session?: string | { readonly id: string };
  /** A key and its value. */
  readonly label?: readonly [string, string];
}

export type ChangeOptions = Owner &
  WaitOptions & {
    readonly evictable?: boolean;
    /** Those named; null removes one. */
    readonly labels?: Readonly<Record<string, string | null>>;
  };

export interface EvictOptions extends WaitOptions {
  /** Only of this model. Default: of all. */
  readonly model?: string;
  /** Says what would go, and frees nothing. */
  readonly dryRun?: boolean;
}
