/**
 * What a model and a region are in the books: plain records. Arithmetic on them is `books.ts`'s, changes are the
 * operations', and how they look on the wire is `src/routes`'.
 */

import type { RegionRecord, State } from "../journal/region-record.ts";
import type { NameIndex } from "./name-index.ts";
import type { OrderedIndex } from "./ordered-index.ts";
import type { Pools } from "./pool.ts";

/** A region of the running server. */
export interface Region extends RegionRecord {
  readonly modelBooks: Model;
  /** The pool of the server and of the model that it is charged to. */
  readonly poolName: string;
  /** Bytes of that pool that it occupies and is charged for: its size in whole pages. */
  chargedBytes: number;
  /** Bytes of host memory that it is charged beside: of memory on a device, what a long list of its tensors takes. */
  readonly listBytes: number;
  /** When a client last asked for it, in ms since the epoch. Not kept over a restart. */
  lastUsedAt: number;
  /** When it was last seen leased, in ms since the epoch; asked only where the owner is linger. */
  leasedAt: number;
  /** What is known of its consumers, of a sealed hand-off; else null. */
  handOff: HandOff | null;
  /** Requests inside the server that read its bytes: a lease like any other. */
  serverLeases: number;
  /** Whether its file has lost the current mark, which it bears from its seal on and never gets again. */
  isUnmarked: boolean;
  /** What a draining region waits for. */
  waitsFor: "lease" | "hard-link" | null;
  /** It drains, and the file system was too full to write so: the row still says what it was before. */
  isRowOwed: boolean;
  /** How long the next question for leases waits, while it drains. */
  pollDelayMs: number;
  /** While `creating`: cancels the work, and settles when it has ended either way. */
  creation: Creation | null;
}

/** What the running server has to know of a region that enters its books. */
export type RegionEntry = RegionRecord &
  Pick<Region, "modelBooks" | "poolName" | "chargedBytes" | "listBytes" | "lastUsedAt" | "leasedAt">;

/** A region with which nothing has been done yet. */
export function toRegion(entry: RegionEntry): Region {
  return {
    ...entry,
    handOff: null,
    serverLeases: 0,
    isUnmarked: false,
    waitsFor: null,
    isRowOwed: false,
    pollDelayMs: 0,
    creation: null,
  };
}

/** On what was adopted, its row lost: its file told all that is known of it. */
export const recoveredLabels = { "tensord.recovered": "true" } as const;

export function isRecovered({ labels }: Pick<Region, "labels">): boolean {
  return labels["tensord.recovered"] === recoveredLabels["tensord.recovered"];
}

/** What is known of the consumers of a sealed hand-off. After a restart its wait begins anew. Times in ms since the epoch. */
export interface HandOff {
  /** When its wait began. */
  readonly since: number;
  /** Whether the lease byte is a consumer's. A maker that knows of no byte of its own holds this one, for a while. */
  isTelling: boolean;
  /** When a consumer was last seen to map it, or said so; 0: none was. */
  consumedAt: number;
  /** Whether its consumers' clients say that the last of them let go. */
  isLetGo: boolean;
  /** Fetches that nobody has said, or was seen, to have mapped yet, and when the last one was. */
  fetches: number;
  fetchedAt: number;
}

export interface Creation {
  readonly cancel: AbortController;
  readonly ended: Promise<void>;
}

/** What may change of a region while it stands, and with it in the books. */
export type RegionChange = Partial<
  Pick<
    RegionRecord,
    | "name"
    | "pendingName"
    | "formerName"
    | "state"
    | "reason"
    | "owner"
    | "expiresAt"
    | "session"
    | "evictable"
    | "labels"
    | "revision"
    | "checksum"
    | "stockWritable"
    | "sealedAt"
  >
>;

export type StateCounts = Record<State, number>;

export function noCounts(): StateCounts {
  return { creating: 0, open: 0, sealing: 0, sealed: 0, draining: 0, deleted: 0 };
}

/** The key of pools, and its books. */
export interface Model {
  readonly name: string;
  readonly pools: Pools;
  /** Its regions by state. */
  readonly counts: StateCounts;
  revision: number;
  readonly createdAt: number;
  /** True while it is being unregistered: nothing new may come. */
  closing: boolean;
  /** How many elastic pools it has. */
  elasticPools: number;
  /** Names held, also by regions still `creating`. */
  readonly names: NameIndex<Region>;
  readonly regions: OrderedIndex<Region>;
}
