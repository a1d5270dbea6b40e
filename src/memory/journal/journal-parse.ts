/**
 * Rows of the journal as what they were. Their JSON is looked at one step deep: enough that a record which was cut or
 * overwritten is found at the opening, where it can be helped, and not by whoever reads it later. Pure.
 */

import { type TensorList, Tensors } from "../layout/tensors.ts";
import type { Identity } from "../storage/storage.ts";
import type { TensorFiles } from "../storage/tensor-files.ts";
import { JournalDamage } from "./journal-failure.ts";
import type {
  ClaimRow,
  ModelRow,
  PoolLimit,
  RegionRow,
  RequestedLeaseRow,
  StoredRegion,
  TensorsRow,
} from "./journal-rows.ts";
import type { Owner, RegionRecord } from "./region-record.ts";
import { states } from "./region-record.ts";
import type { SessionRecord } from "./session-record.ts";
import {
  absentOr,
  type Check,
  checkShape,
  isFlag,
  isList,
  isNumber,
  isObject,
  isText,
  isToken,
  orNull,
  parseStored,
  type Shape,
} from "./stored.ts";

const isIdentity: Check = (value) => isObject(value) && isText((value as Partial<Identity>).ino);

const storedShape: Shape<StoredRegion> = {
  token: isToken,
  expiresAt: orNull(isNumber),
  session: orNull(isText),
  evictable: isFlag,
  labels: isObject,
  revision: isNumber,
  storageKind: isText,
  identity: isIdentity,
  byteSize: isNumber,
  dataOffset: isNumber,
  format: isText,
  checksum: orNull(isObject),
  stockWritable: isFlag,
  createdAt: isNumber,
  sealedAt: orNull(isNumber),
  createdBy: absentOr(orNull(isText)),
  formerName: absentOr(orNull(isText)),
};

const ownerKinds: Readonly<Record<Owner["kind"], true>> = { ttl: true, linger: true, session: true, persist: true };
const ownerShape: Shape<Owner> = { kind: (kind) => typeof kind === "string" && Object.hasOwn(ownerKinds, kind) };

const sessionShape: Shape<SessionRecord> = {
  key: isNumber,
  token: isToken,
  name: orNull(isText),
  client: orNull(isObject),
  quotaBytes: orNull(isNumber),
  ttlMs: isNumber,
  createdAt: isNumber,
  createdBy: absentOr(orNull(isText)),
};

const claimShape: Shape<ClaimRow> = {
  token: isToken,
  model: isText,
  name: isText,
  version: isText,
  session: isText,
  key: orNull(isText),
  rebuilds: absentOr(orNull(isToken)),
};

const requestedLeaseShape: Shape<RequestedLeaseRow> = {
  key: absentOr(isNumber),
  token: isToken,
  region: isText,
  session: orNull(isText),
  ttlMs: isNumber,
  createdBy: absentOr(orNull(isText)),
};

const limitShape: Shape<PoolLimit> = { pool: isText, limitBytes: isNumber };
const modelShape: Shape<ModelRow> = { name: isText, limits: isList, revision: isNumber, createdAt: isNumber };

/** @throws JournalDamage, as all of these do, if the row is none of ours. */
export function parseRegion(row: RegionRow, tensorsRow: TensorsRow | undefined, files: TensorFiles): RegionRecord {
  const { key, state, model, name, pending_name: pendingName, reason, version } = row;
  if (!states.includes(state)) throw new JournalDamage(`a region is in no state: ${state}`);
  const owner = parseStored<Owner>(row.owner, ownerShape);
  const stored = parseStored(row.record, storedShape);
  const tensors = parseTensors(tensorsRow, (count) => files.of(stored.token, count));
  const { storageKind: storageForm, formerName = null, createdBy = null, ...rest } = stored;
  const kept = { ...rest, formerName, createdBy, storageForm };
  return { ...kept, key, state, model, name, version, pendingName, reason, owner, tensors };
}

/** A row without a list stands for one in a file, which is looked at by whoever brings the region back. */
function parseTensors(row: TensorsRow | undefined, toFile: (count: number) => TensorList): TensorList {
  if (row === undefined) throw new JournalDamage("a region has no tensors");
  if (row.list.byteLength === 0) return toFile(row.count);
  try {
    return Tensors.parse(row.count, row.list);
  } catch (cause) {
    throw new JournalDamage("the tensors of a region cannot be read", { cause });
  }
}

export function parseModel(record: string): ModelRow {
  const model = parseStored(record, modelShape);
  for (const limit of model.limits) checkShape({ ...limit }, limitShape);
  return model;
}

export function parseSession(record: string): SessionRecord {
  const session = parseStored(record, sessionShape);
  return { ...session, createdBy: session.createdBy ?? null };
}

export function parseClaim(record: string): ClaimRow {
  const claim = parseStored(record, claimShape);
  return { ...claim, rebuilds: claim.rebuilds ?? null };
}

export function parseRequestedLease(record: string): RequestedLeaseRow {
  return parseStored(record, requestedLeaseShape);
}
