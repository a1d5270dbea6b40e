/** `@tensord/client`: one copy of every tensor per machine. Start with `connect`; see the README for the rest. */

// biome-ignore-start lint/performance/noBarrelFile: the package's one entry, which its users import.
export type { Client } from "./client.ts";
export { connect } from "./connect.ts";
export type { ArrayDtype, ArrayTypes, Dtype, TensorArray } from "./dtype.ts";
export { type ClientCode, type ErrorCode, isTensordError, type ServerCode, TensordError } from "./errors.ts";
export type { RegionEventData, TensordEvent } from "./events/event.ts";
export type { EventStream } from "./events/event-stream.ts";
export type {
  Compaction,
  Deletion,
  Device,
  DeviceList,
  ElasticPoolDescriptor,
  ElasticPoolDetail,
  Eviction,
  Lease,
  ListedRegion,
  MappedPages,
  Model,
  OperationDescriptor,
  PoolDeletion,
  RegionDescriptor,
  Residency,
  SessionDescriptor,
  SessionEnd,
  Stats,
  TensorInfo,
  Trim,
  Verification,
} from "./http/wire.ts";
export type { MemoryLock } from "./memory/memory-lock.ts";
export type { AttachedBy } from "./memory/open.ts";
export type { Advice } from "./memory/page-advice.ts";
export type {
  AccessOptions,
  AnyRegion,
  AttachOnDeviceOptions,
  AttachOptions,
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
  Owner,
  PackedOptions,
  PoolEventOptions,
  PoolsOptions,
  PutOptions,
  ReceiverOptions,
  RingOptions,
  SealGroupOptions,
  SealOptions,
  SessionOptions,
  SlotOptions,
} from "./options.ts";
export type { ElasticPool, PoolEvent } from "./pools/elastic-pool.ts";
export type { DeviceHandle } from "./regions/device-handle.ts";
export type { Group } from "./regions/group.ts";
export type { Operation } from "./regions/operation.ts";
export type { PathHold } from "./regions/path-hold.ts";
export { TensorReference, type WireReference } from "./regions/reference.ts";
export type { Region } from "./regions/region.ts";
export type { DeviceTensors, RegionSource, TensorSource, TensorSpec } from "./regions/sources.ts";
export type { OpenedTensor, Tensor } from "./regions/tensor.ts";
export type { LockKind, TensorLock } from "./regions/tensor-lock.ts";
export type { Call } from "./rings/call.ts";
export type { Message } from "./rings/message.ts";
export type { Receiver } from "./rings/receiver.ts";
export type { Ring } from "./rings/ring.ts";
export type { Rings } from "./rings/rings.ts";
export type { Slot } from "./rings/slot.ts";
export type { WaitOptions } from "./waiting.ts";
// biome-ignore-end lint/performance/noBarrelFile: the package's one entry, which its users import.
