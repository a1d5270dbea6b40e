/** `@tensord/client`: one copy of every tensor per machine. Start with `connect`; see the README for the rest. */

// biome-ignore-start lint/performance/noBarrelFile: the package's one entry, which its users import.
export type { AnyRegion, AttachOptions, Client, CreateOptions, ListOptions, Owner, PatchOptions } from "./client.ts";
export { type ConnectOptions, connect } from "./connect.ts";
export type { ArrayDtype, ArrayTypes, Dtype, TensorArray } from "./dtype.ts";
export { type ClientCode, type ErrorCode, isTensordError, type ServerCode, TensordError } from "./errors.ts";
export type { RegionEventData, TensordEvent } from "./event.ts";
export type { EventOptions, EventStream } from "./event-stream.ts";
export type { AccessOptions } from "./mapper.ts";
export { TensorReference, type WireReference } from "./reference.ts";
export type { Region, SealOptions } from "./region.ts";
export type { RegionSource, TensorSource, TensorSpec } from "./sources.ts";
export type { OpenedTensor, Tensor } from "./tensor.ts";
export type { Deletion, Model, RegionDescriptor, Stats, TensorInfo, Verification } from "./wire.ts";
// biome-ignore-end lint/performance/noBarrelFile: the package's one entry, which its users import.
