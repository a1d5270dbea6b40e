/** What the limits of a session, a model and the server allow, asked of the books; and the failure that names the numbers. */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { hostPool, quote } from "../naming.ts";
import type { Books } from "./books.ts";
import type { Model } from "./region.ts";
import { describeSession, type Session } from "./session.ts";

/** The first limit that keeps a creation from being charged. Cheap: whoever waits for memory asks again and again. */
export interface Shortage {
  readonly code: "session-quota-exceeded" | "model-limit-exceeded" | "pool-full";
  /** Whose memory is short; of a session's quota it is any. */
  readonly poolName: string;
  readonly requestedBytes: number;
  readonly availableBytes: number;
  /** The bound that is short, if it is none of those but the charge's own. */
  readonly own?: OwnLimit;
}

/** A bound beside those of session, model and server: what an elastic pool may have at most. */
export interface OwnLimit {
  /** Whose it is: what goes to make room under it has the same. */
  readonly ownPool: object;
  /** How errors call that. */
  readonly whose: string;
  readonly requestedBytes: number;
  readonly limitBytes: number;
  readonly freeBytes: number;
}

/** What is charged, and to whom beside the server. */
export interface Charge {
  readonly model: Model;
  readonly poolName: string;
  readonly session: Session | null;
  readonly bytes: number;
  /** Of host memory beside. */
  readonly listBytes: number;
  readonly own?: OwnLimit | undefined;
}

/** What keeps the charge from being made now, or undefined. */
export function findShortage(books: Books, charge: Charge): Shortage | undefined {
  const { poolName, session, bytes, listBytes, own } = charge;
  if (own !== undefined && own.requestedBytes > own.freeBytes) {
    const { requestedBytes, freeBytes: availableBytes } = own;
    return { code: "pool-full", poolName, requestedBytes, availableBytes, own };
  }
  const ofSession = toShortage("session-quota-exceeded", poolName, bytes + listBytes, freeOf(session));
  const ofPool = ofSession ?? findPoolShortage(books, charge, poolName, bytes);
  if (ofPool !== undefined || listBytes === 0) return ofPool;
  return findPoolShortage(books, charge, hostPool, listBytes);
}

function findPoolShortage(books: Books, { model }: Charge, name: string, bytes: number): Shortage | undefined {
  const ofModel = toShortage("model-limit-exceeded", name, bytes, model.pools.get(name).freeBytes);
  return ofModel ?? toShortage("pool-full", name, bytes, books.pools.get(name).freeBytes);
}

function toShortage(
  code: Shortage["code"],
  poolName: string,
  requestedBytes: number,
  availableBytes: number,
): Shortage | undefined {
  return requestedBytes > availableBytes ? { code, poolName, requestedBytes, availableBytes } : undefined;
}

function freeOf(session: Session | null): number {
  if (session === null || session.quotaBytes === null) return Number.POSITIVE_INFINITY;
  return Math.max(0, session.quotaBytes - session.usedBytes);
}

/**
 * Whether `charge` may be charged now.
 * @throws TensordError `session-quota-exceeded`, `model-limit-exceeded`, `pool-full`.
 */
export function checkQuota(books: Books, charge: Charge): void {
  const shortage = findShortage(books, charge);
  if (shortage !== undefined) throw toShortageError(books, charge, shortage);
  if (books.regions.size < limits.regions) return;
  throw new TensordError("pool-full", `Cannot create a region: ${limits.regions} exist, the most that may`, {
    hint: "Delete regions, or put several tensors into one.",
  });
}

/**
 * The failure to throw. It names the sessions that hold most, and what is nobody's to end: what lingers, persists or has a
 * TTL, and what drains. It looks at every session for that, which a failure may cost, and at no region.
 */
export function toShortageError(books: Books, charge: Charge, shortage: Shortage): TensordError {
  const { code, requestedBytes, availableBytes } = shortage;
  const { whose, limit, ...facts } = describeLimit(books, charge, shortage);
  return new TensordError(
    code,
    `Cannot allocate ${requestedBytes} bytes${whose}: ${availableBytes} of ${limit} bytes are free`,
    { requested_bytes: requestedBytes, available_bytes: availableBytes, ...facts },
  );
}

function describeLimit(books: Books, { model, session }: Charge, { code, poolName, own }: Shortage) {
  if (own !== undefined) {
    return {
      whose: ` for ${own.whose}`,
      limit: `its ${own.limitBytes}`,
      maximum_bytes: own.limitBytes,
      hint: "Unmap pages of this pool, or raise its maximum (`maximum_bytes`).",
    };
  }
  const onDevice = poolName === hostPool ? "" : ` on device ${poolName}`;
  if (code === "session-quota-exceeded" && session !== null) {
    return {
      whose: ` for ${describeSession(session)}`,
      limit: `its ${session.quotaBytes}`,
      holders: [toHolder(session)],
      hint: "Delete regions of this session, or open one with a larger quota_bytes.",
    };
  }
  const owning = [...books.sessions.after(0)].filter(({ usedBytes }) => usedBytes > 0);
  const largest = owning.toSorted((a, b) => b.usedBytes - a.usedBytes).slice(0, limits.holdersNamed);
  const holders = largest.map(toHolder);
  if (code === "model-limit-exceeded") {
    const { limitBytes, drainingBytes } = model.pools.get(poolName);
    return {
      whose: ` for model ${quote(model.name)}${onDevice}`,
      limit: `its ${limitBytes}`,
      holders,
      draining_bytes: drainingBytes,
      hint: `See \`tensord ls --sort size --holders\`. Delete regions of this model, or raise its limit (\`${poolName === hostPool ? "memory_limit_bytes" : "limits"}\`).`,
    };
  }
  const { limitBytes, usedBytes: allBytes, drainingBytes } = books.pools.get(poolName);
  if (poolName !== hostPool) {
    return {
      whose: onDevice,
      limit: `the server's ${limitBytes}`,
      draining_bytes: drainingBytes,
      hint: "See `tensord ls --sort size --holders`. Delete regions on this device, or create it on another.",
    };
  }
  return {
    whose: "",
    limit: `the server's ${limitBytes}`,
    holders,
    draining_bytes: drainingBytes,
    without_session_bytes: owning.reduce((rest, { usedBytes }) => rest - usedBytes, allBytes),
    hint: "See `tensord ls --sort size --holders`. Delete regions, or give the server more memory (TENSORD_MEMORY_LIMIT_BYTES, a larger tmpfs or cgroup).",
  };
}

function toHolder(session: Session) {
  return { session: describeSession(session), used_bytes: session.usedBytes };
}
