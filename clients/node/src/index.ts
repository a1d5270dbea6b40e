/** `@tensord/client`: one copy of every tensor per machine. Start with `connect`; see the README for the rest. */

// biome-ignore-start lint/performance/noBarrelFile: the package's one entry, which its users import.
export type { Client } from "./client.ts";
export { type ConnectOptions, connect } from "./connect.ts";
export type { ArrayDtype, ArrayTypes, Dtype, TensorArray } from "./dtype.ts";
export { type ClientCode, type ErrorCode, isTensordError, type ServerCode, TensordError } from "./errors.ts";
export type { RegionEventData, TensordEvent } from "./event.ts";
export type { EventOptions, EventStream } from "./event-stream.ts";
export type { AccessOptions } from "./mapper.ts";
export type {
  AnyRegion,
  AttachOptions,
  CreateOptions,
  GetOrCreateOptions,
  ListOptions,
  Owner,
  PatchOptions,
  RingOptions,
} from "./options.ts";
export { TensorReference, type WireReference } from "./reference.ts";
export type { Region, SealOptions } from "./region.ts";
export type { Ring } from "./ring.ts";
export type { SessionOptions } from "./session.ts";
export type { Slot } from "./slot.ts";
export type { RegionSource, TensorSource, TensorSpec } from "./sources.ts";
export type { OpenedTensor, Tensor } from "./tensor.ts";
export type { LockKind, LockOptions, TensorLock } from "./tensor-lock.ts";
export type {
  Deletion,
  ListedRegion,
  Model,
  RegionDescriptor,
  SessionDescriptor,
  SessionEnd,
  Stats,
  TensorInfo,
  Verification,
} from "./wire.ts";
// biome-ignore-end lint/performance/noBarrelFile: the package's one entry, which its users import.
