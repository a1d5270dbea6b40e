/**
 * Elastic pools as the rest of the server knows them: what is asked of them, and what they tell. A pool is of a model on a device, and a map of
 * pages that come and go. `src/cuda/elastic` makes them; here is no driver.
 */

import type { Operation } from "./operation.ts";
import type { Model } from "./region.ts";
import type { OnFull } from "./room-queue.ts";
import type { Session } from "./session.ts";

/** Whole pages of a pool's virtual range, in bytes from its beginning: what all workers share. */
export interface PoolRange {
  readonly byteOffset: number;
  readonly byteSize: number;
}

/** Page numbers: the first of them, and how many there are in a row. */
export type PageRange = readonly [firstPage: number, count: number];

/** Open: a later server may have others. */
export const runStates = ["mapped", "leaving"] as const;

/** Pages with numbers in a row that lie side by side: what one request mapped, or a part of it. */
export interface Run extends PoolRange {
  /** The number of its first page. No number is used again in a pool. */
  readonly firstPage: number;
  readonly state: (typeof runStates)[number];
  readonly evictable: boolean;
  /** The token of the session with which it ends, or null. */
  readonly session: string | null;
  /** In ms since the epoch, as all times here. */
  readonly mappedAt: number;
  /** When a worker last took a page of it. */
  readonly lastUsedAt: number;
}

/** A run that is announced to go, and goes once nobody has it. */
export interface LeavingRun extends Run {
  readonly since: number;
  /** Slots of the workers that have pages of it. */
  readonly takenBy: readonly number[];
}

/** A page that is in no map any more, and that the driver, or an undo, did not give back: charged until it is. */
export interface OwedPage {
  readonly page: number;
  readonly byteSize: number;
  readonly since: number;
  /** What the last try failed with. */
  readonly reason: string;
}

/** Pages that left long ago, and that a worker has still. */
export interface OverduePages extends PoolRange {
  readonly since: number;
}

export interface WorkerDescription {
  readonly slot: number;
  /** The token of its session, or null. */
  readonly session: string | null;
  /** What its process is called, or null. */
  readonly client: string | null;
  readonly agreesToMoves: boolean;
  readonly takenBytes: number;
  /** How many pages it has taken and not let go of. */
  readonly takenPages: number;
  /** The number of the event that it said to have followed to. */
  readonly acknowledged: number;
  readonly isConnected: boolean;
  readonly overdue: readonly OverduePages[];
}

/** A pool, for whoever has found it. What it holds, `ElasticPools.describe` tells. */
export interface ElasticPool {
  /** Ascends: the order of lists. */
  readonly key: number;
  readonly token: string;
  readonly model: Model;
  readonly deviceUuid: string;
  readonly virtualCapacity: number;
  readonly pageSize: number;
  readonly minimumBytes: number;
  readonly maximumBytes: number | null;
  readonly revision: number;
  readonly createdAt: number;
  /** The name of the token that made it, or null. */
  readonly createdBy: string | null;
}

/** Its sums, which cost nothing to tell. */
export interface PoolFigures {
  /** What is charged for its pages: mapped, leaving, unreleased and stuck ones. */
  readonly physicalBytes: number;
  readonly mappedBytes: number;
  readonly runCount: number;
  /** Of the virtual range. */
  readonly freeBytes: number;
  readonly largestFreeBytes: number;
  /** 1 − largest free ÷ free; 0 if nothing is free. */
  readonly fragmentation: number;
  /** The number of the event at which all of this is true. */
  readonly sequence: number;
  /** Whether every page is kept while no server runs. */
  readonly survivesRestart: boolean;
}

export interface PoolDescription extends PoolFigures {
  /** The first thousand of each, by offset. */
  readonly runs: readonly Run[];
  readonly freeRuns: readonly PoolRange[];
  readonly leaving: readonly LeavingRun[];
  readonly unreleased: readonly OwedPage[];
  readonly stuck: readonly OwedPage[];
  readonly workers: readonly WorkerDescription[];
  /** Whether all of the range that was asked about is mapped; undefined if none was. */
  readonly isMapped: boolean | undefined;
}

export interface PoolRequest {
  readonly model: string;
  readonly deviceUuid: string;
  readonly virtualCapacity: number;
  readonly pageSize: number;
  readonly minimumBytes: number;
  readonly maximumBytes: number | null;
  readonly createdBy: string | null;
}

export interface PoolChange {
  readonly minimumBytes?: number | undefined;
  readonly maximumBytes?: number | null | undefined;
}

export interface MapRequest {
  readonly byteSize: number;
  /** undefined: the first hole that fits. */
  readonly byteOffset: number | undefined;
  readonly session: Session | null;
  readonly evictable: boolean;
  readonly onFull: OnFull;
  /** How long it may wait for memory. */
  readonly deadlineMs: number;
  /** The id of the request, for events. */
  readonly actor: string | undefined;
}

export interface UnmapRequest extends PoolRange {
  readonly createdBy: string | null;
  readonly actor: string | undefined;
}

export interface PageMove {
  readonly fromByteOffset: number;
  readonly toByteOffset: number;
  readonly byteSize: number;
  readonly firstPage: number;
}

export interface AttachRequest {
  /** A slot that the worker has locked since an earlier connection, or an earlier server. */
  readonly slot: number | undefined;
  /** What it has, if it has a slot. */
  readonly taken: readonly PageRange[];
  /** Whether its pages may be moved under it. */
  readonly agreesToMoves: boolean;
  readonly session: Session | null;
  /** What its process is called, or null. */
  readonly client: string | null;
}

/** A worker that is attached to a pool: the subject of what it asks. */
export interface PoolWorker {
  readonly pool: ElasticPool;
  readonly slot: number;
}

export interface Attached {
  readonly worker: PoolWorker;
  /** A description of the lease file that has locked the slot's byte: the caller's to send and close. undefined: the worker has one. */
  readonly slotFd: number | undefined;
  readonly runs: readonly Run[];
  readonly sequence: number;
}

export interface Taken {
  /** In the order of `descriptors`. */
  readonly pages: readonly number[];
  /** Those that are mapped no longer. */
  readonly gone: readonly number[];
  /** To be called if the worker will not get them: it has then what it had before. */
  readonly takeBack: () => void;
  /** The caller's to send and close. */
  readonly descriptors: readonly number[];
}

/** Why pages went, as `vmm.unmapped` says; an open word. */
export const unmapReasons = ["request", "session", "evicted", "trimmed", "deleted", "lost"] as const;
export type UnmapReason = (typeof unmapReasons)[number];
export const mapReasons = ["request", "undone"] as const;
export type MapReason = (typeof mapReasons)[number];

/** Pages that a worker has though they left long ago, for the doctor. */
export interface Overdue {
  readonly pool: ElasticPool;
  readonly slot: number;
  readonly client: string | null;
  readonly isConnected: boolean;
  readonly byteSize: number;
  readonly since: number;
}

/** Pages that are charged though nothing maps them, for the doctor. */
export interface Owed extends OwedPage {
  readonly pool: ElasticPool;
  readonly isStuck: boolean;
}

/**
 * All elastic pools of a server. What is said to throw a 507 throws `model-limit-exceeded`, `pool-full` (also of the pool's own maximum),
 * `out-of-device-memory`, `out-of-descriptors`, `out-of-shared-memory`; `io-error` and `deadline-exceeded` are the driver's.
 */
export interface ElasticPools {
  /**
   * Makes a pool, or finds the one that was made with the same values.
   * @throws TensordError `model-not-found`, `device-not-found`, `not-ready`, `storage-unavailable` of a device that cannot be used, `invalid-page-size`,
   * `out-of-range` of a capacity, `vmm-pool-exists`, a 507, `shutting-down`.
   */
  create(request: PoolRequest): Promise<{ readonly pool: ElasticPool; readonly isNew: boolean }>;
  /** @throws TensordError `model-not-found`, `vmm-pool-not-found`. */
  find(model: string, deviceUuid: string): ElasticPool;
  /** The pool with this token, or undefined. */
  findByToken(token: string): ElasticPool | undefined;
  readonly count: number;
  /** In the order in which they were made, those with a key above `key`. Not to be changed meanwhile. */
  after(key: number): Iterable<ElasticPool>;
  /** Changes limits. One below what is used stops further mapping, and takes nothing away. @throws TensordError a 507 of a minimum. */
  change(pool: ElasticPool, change: PoolChange): void;
  /** @throws TensordError `in-use` while a worker is attached. */
  remove(pool: ElasticPool, actor: string | undefined): Promise<{ readonly freedBytes: number }>;
  figures(pool: ElasticPool): PoolFigures;
  /** @throws TensordError `out-of-range`. */
  describe(pool: ElasticPool, range?: PoolRange): PoolDescription;
  /**
   * Maps pages: all of them, or none.
   * @throws TensordError `out-of-range`, `already-mapped`, a 507, `session-not-found`, `deadline-exceeded`, `vmm-pool-not-found` if it is deleted meanwhile.
   */
  map(
    pool: ElasticPool,
    request: MapRequest,
    signal: AbortSignal,
  ): Promise<{ readonly run: Run; readonly sequence: number }>;
  /** Announces that pages go, and goes on with that by itself. @throws TensordError `out-of-range`, `not-mapped`, `too-many-requests`, `shutting-down`. */
  unmap(pool: ElasticPool, request: UnmapRequest): Operation;
  /** Unmaps what no worker has taken. */
  trim(
    pool: ElasticPool,
    actor: string | undefined,
  ): Promise<{ readonly freedBytes: number; readonly sequence: number }>;
  /** Closes the holes between runs. @throws TensordError `in-use` while a worker has not agreed to it, or pages come or leave. */
  compact(pool: ElasticPool): { readonly moves: readonly PageMove[]; readonly sequence: number };

  /** @throws TensordError `lease-not-found` of a slot that nobody has locked, `in-use` of one whose worker is connected, `too-many-requests`, `out-of-descriptors`. */
  attachWorker(pool: ElasticPool, request: AttachRequest): Attached;
  /** The whole map again, for one that missed something. */
  refresh(worker: PoolWorker): Pick<Attached, "runs" | "sequence">;
  /** @throws TensordError `out-of-descriptors`, `io-error`, `deadline-exceeded`: then it has got none. */
  take(worker: PoolWorker, ranges: readonly PageRange[]): Promise<Taken>;
  /** @param sequence the number of the event that it has followed to. */
  letGo(worker: PoolWorker, ranges: readonly PageRange[], sequence: number): void;
  /** It has let go of everything, and is none of the pool's workers any more. */
  leave(worker: PoolWorker): void;
  /** Its connection has ended: whether it lives, its slot tells. */
  disconnected(worker: PoolWorker): void;

  /** Runs of a session that ends begin to leave. */
  endSession(session: Session, actor: string | undefined): void;
  readonly overdue: readonly Overdue[];
  readonly owed: readonly Owed[];
  /** Undoes what leaves, and gives up what waits. Resolves once no call of the driver is under way. */
  stop(): Promise<void>;
}

export function idOfPool({ token }: Pick<ElasticPool, "token">): string {
  return `vmm_${token}`;
}
