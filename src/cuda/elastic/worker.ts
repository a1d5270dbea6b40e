/**
 * Workers of a pool. Each holds a lock on the byte of its slot in the pool's lease file for as long as it has anything mapped, so that the kernel says
 * whether it lives, also of one whose connection has ended and over a restart of the server.
 */

import { constants } from "node:fs";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { toOutOfDescriptors } from "../../memory/os/descriptors.ts";
import { openFile } from "../../memory/os/files.ts";
import { isLocked, tryReadLock } from "../../memory/os/libc.ts";
import type { AttachRequest, ElasticPool, PoolWorker } from "../../memory/state/elastic.ts";

export class ElasticWorker<Pool extends ElasticPool> implements PoolWorker {
  readonly pool: Pool;
  readonly slot: number;
  session: string | null = null;
  client: string | null = null;
  agreesToMoves = false;
  readonly taken = new Set<number>();
  acknowledged = 0;
  isConnected = false;
  /** It is none of the pool's workers any more. */
  isGone = false;

  constructor(pool: Pool, slot: number) {
    this.pool = pool;
    this.slot = slot;
  }

  /** As errors call it. */
  get name(): string {
    return `worker ${this.slot}${this.client === null ? "" : ` (${this.client})`}`;
  }

  connect({ agreesToMoves, session, client }: AttachRequest): void {
    this.isConnected = true;
    this.agreesToMoves = agreesToMoves;
    this.session = session?.token ?? null;
    this.client = client;
  }
}

/** A pool's slots: its lease file, and those that are somebody's. */
export interface Slots {
  readonly leaseFd: number;
  readonly workers: ReadonlyMap<number, unknown>;
}

/** Whether somebody holds the lock of a slot. */
export function isSlotLocked(pool: Pick<Slots, "leaseFd">, slot: number): boolean {
  return isLocked(pool.leaseFd, BigInt(slot), 1n);
}

/** Slots that somebody holds. */
export function findLockedSlots(leaseFd: number): number[] {
  if (!isLocked(leaseFd, 0n, BigInt(limits.elasticWorkers))) return [];
  return Array.from({ length: limits.elasticWorkers }, (_, slot) => slot).filter((slot) =>
    isLocked(leaseFd, BigInt(slot), 1n),
  );
}

/** A slot that is nobody's, and a description of the lease file that has locked it: the caller's to send and close. */
export function takeSlot(pool: Slots): { readonly slot: number; readonly fd: number } {
  for (let slot = 0; slot < limits.elasticWorkers; slot++) {
    // Of one that has just left, or that this server has never known, somebody may hold the lock still.
    if (pool.workers.has(slot) || isSlotLocked(pool, slot)) continue;
    return { slot, fd: openSlot(pool, slot) };
  }
  throw new TensordError(
    "too-many-requests",
    `Cannot attach to the elastic pool: it has ${limits.elasticWorkers} workers, the most that may`,
    { hint: "Attach once in a process, and leave pools that are no longer used." },
  );
}

function openSlot(pool: Slots, slot: number): number {
  let fd: number;
  try {
    fd = openFile(`/proc/self/fd/${pool.leaseFd}`, constants.O_RDONLY, undefined, "short");
  } catch (error) {
    throw toOutOfDescriptors(error) ?? error;
  }
  // Nobody has it, and nobody else gives it away.
  tryReadLock(fd, BigInt(slot), 1n);
  return fd;
}
