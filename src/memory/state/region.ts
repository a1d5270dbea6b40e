/**
 * What a model and a region are in the books: plain records. Arithmetic on them is `books.ts`'s, changes are the
 * operations', and how they look on the wire is `src/routes`'.
 */

import type { Checksum } from "../layout/checksum.ts";
import type { Tensor } from "../layout/layout.ts";
import { type RegionId, type SessionId, toRegionId } from "../naming.ts";
import type { State } from "./lifecycle.ts";
import type { OrderedIndex } from "./ordered-index.ts";

/** What decides a region's end. */
export type Owner =
  | { readonly kind: "ttl"; readonly ttlMs: number }
  | { readonly kind: "linger"; readonly lingerMs: number }
  | { readonly kind: "session"; readonly session: SessionId }
  | { readonly kind: "persist" };

/** Why a region ends, as events tell it: `orphaned` is what a start finds that no row knows. */
export const toldEndReasons = ["request", "ttl", "linger", "session", "evicted", "replaced", "orphaned"] as const;

/** Why a region ends; one that is aborted was never told of. */
export type EndReason = (typeof toldEndReasons)[number] | "aborted";

/** A file's identity, by which both sides see that they look at the same one. Strings, because they are 64 bits wide. */
export interface Identity {
  readonly dev: string;
  readonly ino: string;
}

/** What of a region outlives the server: the journal's row. */
export interface RegionRecord {
  readonly key: number;
  readonly token: string;
  readonly model: string;
  /** The name it holds, which no other region of the model holds, or null. */
  name: string | null;
  /** The name it takes over when it is sealed, or null. */
  pendingName: string | null;
  state: State;
  /** Set once it is on its way out. */
  reason: EndReason | null;
  owner: Owner;
  /** When its TTL or its linger ends, as far as is known now, in ms since the epoch, or null. */
  expiresAt: number | null;
  /** The token of the session that ends it: its owner, or who builds it under a claim until it is sealed. */
  session: string | null;
  /** Once it is sealed and nobody maps it, it may go to make room. */
  evictable: boolean;
  labels: Readonly<Record<string, string>>;
  revision: number;
  readonly storageKind: "shm";
  identity: Identity;
  /** The whole file. */
  readonly byteSize: number;
  /** Where tensor data begins in it. */
  readonly dataOffset: number;
  readonly tensors: readonly Tensor[];
  checksum: Checksum | null;
  /** Sealed with mode 0660, for stock readers that always open read-write. */
  stockWritable: boolean;
  readonly createdAt: number;
  sealedAt: number | null;
}

/** A region of the running server. */
export interface Region extends RegionRecord {
  readonly pool: Model;
  /** The living session of that token, which is charged for it. */
  payer: Payer | null;
  /** Bytes it occupies and is charged for: its size in whole pages. */
  readonly chargedBytes: number;
  /** The name that it gave up on its way out, for those who knew it by that. */
  formerName: string | null;
  /** When a client last asked for it, in ms since the epoch. Not kept over a restart. */
  lastUsedAt: number;
  /** When it was last seen leased, in ms since the epoch; asked only where the owner is linger. */
  leasedAt: number;
  /** Requests inside the server that read its bytes: a lease like any other. */
  serverLeases: number;
  /** What a draining region waits for. */
  waitsFor: "lease" | "hard-link" | null;
  /** It drains, and the file system was too full to write so: the row still says what it was before. */
  isRowOwed: boolean;
  /** How long the next question for leases waits, while it drains. */
  pollDelayMs: number;
  /** While `creating`: cancels the work, and settles when it has ended either way. */
  creation: Creation | null;
}

export interface Creation {
  readonly cancel: AbortController;
  readonly ended: Promise<void>;
}

/** Who is charged for regions beside their model: a session. */
export interface Payer {
  usedBytes: number;
  readonly regions: Set<Region>;
}

/** The key of a pool, and its books. */
export interface Model {
  readonly name: string;
  memoryLimitBytes: number | null;
  usedBytes: number;
  drainingBytes: number;
  revision: number;
  readonly createdAt: number;
  /** True while it is being unregistered: nothing new may come. */
  closing: boolean;
  /** Names held, also by regions still `creating`. */
  readonly names: Map<string, Region>;
  readonly regions: OrderedIndex<Region>;
}

export function idOf(region: RegionRecord): RegionId {
  return toRegionId(region.token);
}

/** How errors and logs call a region: its id, and its name if it holds one. */
export function describe(region: RegionRecord): string {
  return region.name === null ? idOf(region) : `${idOf(region)} (${region.model}/${region.name})`;
}
