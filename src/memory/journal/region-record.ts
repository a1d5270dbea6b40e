/**
 * What of a region outlives the server: the journal's row, and the words that it is written in. Pure; what the running
 * server knows beside it is `state/region.ts`'s.
 */

import type { Checksum } from "../layout/checksum.ts";
import type { TensorList } from "../layout/tensors.ts";
import { type RegionId, type SessionId, toRegionId } from "../naming.ts";
import type { Identity, StorageForm } from "../storage/storage.ts";

/** In the order of a life; `deleted` is the end. What leads from one to the next is `state/lifecycle.ts`'s. */
export const states = ["creating", "open", "sealing", "sealed", "draining", "deleted"] as const;
export type State = (typeof states)[number];

/** What decides a region's end. */
export type Owner =
  | { readonly kind: "ttl"; readonly ttlMs: number }
  | { readonly kind: "linger"; readonly lingerMs: number; readonly handoffMs: number }
  | { readonly kind: "session"; readonly session: SessionId }
  | { readonly kind: "persist" };

/** How its bytes are laid out: `safetensors` with its header, or `raw` with data from the first byte on. */
export type Format = "safetensors" | "raw";

/** Why a region ends, as events tell it: `orphaned` is what a start finds that no row knows. */
export const toldEndReasons = ["request", "ttl", "linger", "session", "evicted", "replaced", "orphaned"] as const;

/** Why a region ends; one that is aborted was never told of. */
export type EndReason = (typeof toldEndReasons)[number] | "aborted";

/** What of a region outlives the server: the journal's row. */
export interface RegionRecord {
  readonly key: number;
  readonly token: string;
  readonly model: string;
  /** The name it holds, which no other region of the model holds in the same version, or null. */
  name: string | null;
  /** Which build of the name it is; versions stand side by side. Empty unless somebody said so. */
  readonly version: string;
  /** The name it takes over when it is sealed, or null. */
  pendingName: string | null;
  /** The name that it gave up on its way out, for those who knew it by that, or null. */
  formerName: string | null;
  state: State;
  /** Set once it is on its way out. */
  reason: EndReason | null;
  owner: Owner;
  /** When its TTL or its linger ends, as far as is known now, in ms since the epoch, or null. */
  expiresAt: number | null;
  /**
   * The token of the session that pays for it and ends it: its owner, or who builds it under a claim until it is sealed. This
   * decides; the id in an owner only says which one it was.
   */
  session: string | null;
  /** Once it is sealed and nobody maps it, it may go to make room. */
  evictable: boolean;
  labels: Readonly<Record<string, string>>;
  revision: number;
  readonly storageForm: StorageForm;
  readonly format: Format;
  identity: Identity;
  /** The whole file. */
  readonly byteSize: number;
  /** Where tensor data begins in it. */
  readonly dataOffset: number;
  /** In memory until a file has been written of a long list. */
  tensors: TensorList;
  checksum: Checksum | null;
  /** Sealed with mode 0660, for stock readers that always open read-write. */
  stockWritable: boolean;
  readonly createdAt: number;
  /** Who made it: the name of a token, or null where nobody was asked for one. */
  readonly createdBy: string | null;
  sealedAt: number | null;
}

export function idOf(region: Pick<RegionRecord, "token">): RegionId {
  return toRegionId(region.token);
}

/** How errors and logs call a region: its id, and its name if it holds one. */
export function describe(region: Pick<RegionRecord, "token" | "model" | "name" | "version">): string {
  if (region.name === null) return idOf(region);
  const version = region.version === "" ? "" : `, version ${region.version}`;
  return `${idOf(region)} (${region.model}/${region.name}${version})`;
}
