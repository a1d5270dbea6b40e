/** All options of all calls, each with its kind. A table that lacks an option of the type that callers see does not compile. */

import type {
  AccessOptions,
  AttachOnDeviceOptions,
  AttachOptions,
  ChangeModelOptions,
  ChangeOptions,
  ChangePoolOptions,
  ConnectOptions,
  CopyOptions,
  CreateOnDeviceOptions,
  CreateOptions,
  CreatePoolOptions,
  DescribePoolOptions,
  EventOptions,
  EvictOptions,
  GetOptions,
  GetOrCreateOptions,
  HoldOptions,
  ListOptions,
  LoadModelOptions,
  LoadOptions,
  LockOptions,
  MapOptions,
  OpenPackedOptions,
  OperationsOptions,
  OperationWaitOptions,
  PackedOptions,
  PoolEventOptions,
  PoolsOptions,
  PutOptions,
  ReceiverOptions,
  RegisterModelOptions,
  RevisionOptions,
  RingOptions,
  SealGroupOptions,
  SealOptions,
  SessionOptions,
  SlotOptions,
  UnregisterModelOptions,
} from "../options.ts";
import type { WaitOptions } from "../waiting.ts";
import * as kinds from "./kinds.ts";
import { tableOf } from "./options.ts";
import { isPlain, type Kind } from "./value.ts";

export const wait = tableOf<WaitOptions>()({ signal: kinds.abortSignal });

const session: Kind<SessionOptions | false> = {
  want: "an object of the session's options, or false",
  accepts: (value) => value === false || isPlain(value),
};

export const connect = tableOf<ConnectOptions>()({
  ...wait,
  url: kinds.text,
  token: kinds.text,
  waitMs: kinds.waitMs,
  retryMs: kinds.waitMs,
  session,
});

export const sessions = tableOf<SessionOptions>()({
  name: kinds.text,
  quotaBytes: kinds.bytes,
  ttlMs: kinds.wholeMs,
  hold: kinds.oneOf("websocket", "broker"),
  onLost: kinds.callback<NonNullable<SessionOptions["onLost"]>>(),
});

const owner = {
  ttlMs: kinds.wholeMs,
  lingerMs: kinds.wholeMs,
  handoffMs: kinds.wholeMs,
  persist: kinds.onlyTrue,
} as const;

const madeAnywhere = {
  ...wait,
  ...owner,
  model: kinds.text,
  version: kinds.text,
  labels: kinds.labels,
  evictable: kinds.flag,
  onFull: kinds.oneOf("fail", "evict", "wait"),
  deadlineMs: kinds.wholeMs,
} as const;

const made = {
  ...madeAnywhere,
  storage: kinds.oneOf("shm", "memfd", "heap"),
  private: kinds.flag,
  hugePages: kinds.text as Kind<NonNullable<CreateOptions["hugePages"]>>,
} as const;

const ifExists = kinds.oneOf("fail", "attach", "replace");

export const create = tableOf<CreateOptions>()({ ...made, ifExists });

export const createOnDevice = tableOf<CreateOnDeviceOptions>()({ ...madeAnywhere, deviceUuid: kinds.text, ifExists });

export const copy = tableOf<CopyOptions>()({
  ...made,
  name: kinds.nameOrNull,
  device: kinds.text,
  ifExists: kinds.oneOf("fail", "attach", "replace"),
});

export const load = tableOf<LoadOptions>()({
  ...made,
  name: kinds.text,
  raw: kinds.flag,
  mode: kinds.oneOf("auto", "map", "copy"),
  device: kinds.text,
  ifExists: kinds.oneOf("attach", "fail"),
});

export const operations = tableOf<OperationsOptions>()({
  ...wait,
  model: kinds.text,
  state: kinds.oneOf("running", "succeeded", "failed", "cancelled"),
});

export const operationWait = tableOf<OperationWaitOptions>()({
  ...wait,
  timeoutMs: kinds.waitMs,
  onProgress: kinds.callback<NonNullable<OperationWaitOptions["onProgress"]>>(),
});

export const loadModel = tableOf<LoadModelOptions>()({
  ...load,
  timeoutMs: operationWait.timeoutMs,
  onProgress: operationWait.onProgress,
  strict: kinds.flag,
});

export const getOrCreate = tableOf<GetOrCreateOptions>()({
  ...made,
  timeoutMs: kinds.waitMs,
  rebuild: kinds.flag,
  checksum: kinds.flag,
  strict: kinds.flag,
});

export const ring = tableOf<RingOptions>()({
  ...made,
  slots: kinds.count,
  slotBytes: kinds.bytes,
  name: kinds.nameOrNull,
});

export const access = tableOf<AccessOptions>()({ writable: kinds.flag, strict: kinds.flag });

export const get = tableOf<GetOptions>()({ ...wait, model: kinds.text, version: kinds.text });

export const attach = tableOf<AttachOptions>()({ ...access, ...get, timeoutMs: kinds.waitMs });

export const hold = tableOf<HoldOptions>()({ ...get, timeoutMs: kinds.waitMs });

export const attachOnDevice = tableOf<AttachOnDeviceOptions>()({
  ...get,
  writable: kinds.flag,
  timeoutMs: kinds.waitMs,
});

export const lock = tableOf<LockOptions>()({ ...wait, timeoutMs: kinds.waitMs });

export const openWhenFree = tableOf<AccessOptions & LockOptions>()({ ...access, ...lock });

export const packed = tableOf<PackedOptions>()({ packed: kinds.flag });

export const put = tableOf<PutOptions>()({ ...lock, ...packed });

export const receiver = tableOf<ReceiverOptions>()({ writable: kinds.flag, onlyNew: kinds.flag });

export const openPacked = tableOf<OpenPackedOptions>()({ ...lock, writable: kinds.flag });

export const slot = tableOf<SlotOptions>()({ writable: kinds.flag });

export const slotWhenFree = tableOf<SlotOptions & LockOptions>()({ ...slot, ...lock });

export const list = tableOf<ListOptions>()({
  ...get,
  name: kinds.text,
  state: kinds.oneOf("creating", "open", "sealing", "sealed", "draining", "deleted"),
  session: kinds.identified,
  label: kinds.textPair,
});

export const revision = tableOf<RevisionOptions>()({ ...wait, ifMatch: kinds.count });

export const change = tableOf<ChangeOptions>()({
  ...revision,
  ...owner,
  evictable: kinds.flag,
  labels: kinds.labelChanges,
});

export const evict = tableOf<EvictOptions>()({ ...wait, model: kinds.text, pool: kinds.text, dryRun: kinds.flag });

export const registerModel = tableOf<RegisterModelOptions>()({
  ...wait,
  memoryLimitBytes: kinds.bytes,
  limits: kinds.poolLimits,
});

export const changeModel = tableOf<ChangeModelOptions>()({
  ...revision,
  memoryLimitBytes: kinds.orNull(kinds.bytes),
  limits: kinds.poolLimits,
});

export const unregisterModel = tableOf<UnregisterModelOptions>()({ ...revision, drain: kinds.flag });

export const events = tableOf<EventOptions>()({
  ...wait,
  model: kinds.text,
  after: kinds.text,
  session: kinds.text,
  types: kinds.texts,
  reconnect: kinds.flag,
});

export const seal = tableOf<SealOptions>()({ ...revision, checksum: kinds.flag, stockWritable: kinds.flag });

export const sealGroup = tableOf<SealGroupOptions>()({ ...seal, ifMatch: kinds.listOf(kinds.count) });

export const pools = tableOf<PoolsOptions>()({ ...wait, model: kinds.text });

const poolLimits = { minimumBytes: kinds.bytes, maximumBytes: kinds.orNull(kinds.bytes) } as const;

export const createPool = tableOf<CreatePoolOptions>()({
  ...wait,
  ...poolLimits,
  virtualCapacity: kinds.bytes,
  pageSize: kinds.bytes,
});

export const changePool = tableOf<ChangePoolOptions>()({ ...revision, ...poolLimits });

export const describePool = tableOf<DescribePoolOptions>()({
  ...wait,
  byteOffset: kinds.bytes,
  byteSize: kinds.bytes,
});

export const mapPages = tableOf<MapOptions>()({
  ...wait,
  byteOffset: kinds.bytes,
  session: kinds.identified,
  evictable: kinds.flag,
  onFull: kinds.oneOf("fail", "evict", "wait"),
  deadlineMs: kinds.wholeMs,
});

export const poolEvents = tableOf<PoolEventOptions>()({ ...wait, after: kinds.text, reconnect: kinds.flag });
