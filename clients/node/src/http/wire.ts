/**
 * The server's words and ours: JSON on the wire is `snake_case`, TypeScript is `camelCase`. Everything that crosses is
 * converted here and nowhere else; the types follow from the OpenAPI document. Checks what this package relies on.
 */

import { fromProblem, TensordError } from "../errors.ts";
import type { components } from "../generated/openapi.ts";

type Schemas = components["schemas"];

type CamelCase<Text extends string> = Text extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Text;

/** A wire type as TypeScript sees it. The keys of `labels` are the user's, and stay. */
export type FromWire<Wire> = Wire extends readonly (infer Item)[]
  ? readonly FromWire<Item>[]
  : Wire extends object
    ? {
        readonly [Key in keyof Wire as Key extends string ? CamelCase<Key> : Key]: Key extends "labels"
          ? Wire[Key]
          : FromWire<Wire[Key]>;
      }
    : Wire;

/**
 * A region as the server described it at one moment. `storage.dev` and `storage.ino` are decimal strings, since they are
 * 64 bits wide. `inUse` and `hasWriters` are there when one region was asked for; lists leave them out.
 */
export type RegionDescriptor = FromWire<Schemas["Region"] & Partial<Schemas["RegionDetail"]>>;

/** Whether it is gone when its consumer lets go. */
export function isHandOff({ owner }: Pick<RegionDescriptor, "owner">): boolean {
  return owner.kind === "linger" && owner.lingerMs === 0;
}

/** A region as a list says it: with the number of its tensors in their place. */
export type ListedRegion = FromWire<Schemas["RegionFacts"]>;

/**
 * A tensor of a region: `byteOffset` counts from the start of the region's file. `aliasOf` names the tensor whose bytes these
 * are, if they are another's; `logical` says what they stand for where no dtype does, such as blocks of quantised elements.
 */
export type TensorInfo = Omit<FromWire<Schemas["Tensor"]>, "aligned">;

/** A tensor to lay out in a new region. */
export type TensorRequest = FromWire<Schemas["TensorRequest"]>;

/** A pool with a limit of its own, and its books. */
export type Model = FromWire<Schemas["Model"]>;

/** What the server offers; one from before there was a broker says nothing of it. */
export type Capabilities = Partial<FromWire<Pick<Schemas["Capabilities"], "broker" | "instance">>>;

/** The server's books: bytes, inodes, regions by state, models. */
export type Stats = FromWire<Schemas["Stats"]>;

/**
 * A GPU of the server's host at one moment. `uuid` names it in every process, `index` in the server's alone. null is what nobody
 * tells: `freeBytes`, `othersBytes` and `persistenceMode` are NVML's. One that is not `usable` says why, and what to do.
 */
export type Device = FromWire<Schemas["Device"]>;

/** The devices of the server's host, and why none can be used if that is so. */
export type DeviceList = FromWire<Schemas["DeviceList"]>;

/** An elastic pool in a list: its sums, without its pages. */
export type ElasticPoolDescriptor = FromWire<Schemas["ElasticPool"]>;

/** An elastic pool at one moment, which `sequence` is: its pages, its holes, its workers. */
export type ElasticPoolDetail = FromWire<Schemas["ElasticPoolDetail"]>;

/** Pages side by side that were mapped at once, and the event at which they are there. */
export type MappedPages = FromWire<Schemas["MappedPages"]>;

/** What was given back of a pool that is gone. */
export type PoolDeletion = FromWire<Schemas["PoolDeletion"]>;

/** What a trim gave back. */
export type Trim = FromWire<Schemas["Trim"]>;

/** Which pages lie elsewhere now. */
export type Compaction = FromWire<Schemas["Compaction"]>;

/** A recomputed checksum beside the recorded one. `ok` and `expected` are null if none was recorded. */
export type Verification = FromWire<Schemas["Verification"]>;

/** How many of a region's bytes were in memory before the kernel was advised, and are now; null where it does not tell the server. */
export type Residency = FromWire<Schemas["Residency"]>;

/**
 * What a delete did: `draining` while somebody still maps the region. `freedBytes` is what came back at once; 0 as well if
 * a restart of the server swallowed the first answer.
 */
export type Deletion = FromWire<Schemas["Deletion"]>;

/** What an eviction freed or, of a dry run, would free; and what stays, and why. */
export type Eviction = FromWire<Schemas["Eviction"]>;

/** One worker's stay: what it owns ends with it. */
export type SessionDescriptor = FromWire<Schemas["Session"]>;

/** What ended with a session. */
export type SessionEnd = FromWire<Schemas["SessionEnd"]>;

/** A lease by request, of those who cannot hold a kernel lock: it ends at `expiresAt`, unless it is renewed. */
export type Lease = FromWire<Schemas["Lease"]>;

/** Long work of the server as it was at one moment; `region` is the id of what it made, `problem` what it failed with. */
export type OperationDescriptor = FromWire<Schemas["Operation"]>;

/** The answer of a claim: the builder's part, or a reader's, with the region if there is one. */
export type Claim = Omit<FromWire<Schemas["ClaimAnswer"]>, "region"> & { readonly region: RegionDescriptor | null };

/** JSON as the wire has it. */
export type WireObject = { readonly [key: string]: unknown };

/** Any JSON in our words. */
export function fromWire(value: unknown): unknown {
  return renameKeys(value, camelCaseOf);
}

/** Our words for the wire. */
export function toWire(value: unknown): unknown {
  return renameKeys(value, snakeCaseOf);
}

function toCamelCase(key: string): string {
  return key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function toSnakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The words of the wire are few, and come again with each message; what else a server sends is not to pile up. */
const maxRemembered = 1024;

function remembered(rename: (key: string) => string): (key: string) => string {
  const names = new Map<string, string>();
  return (key) => {
    const known = names.get(key);
    if (known !== undefined) return known;
    const name = rename(key);
    if (names.size < maxRemembered) names.set(key, name);
    return name;
  };
}

const camelCaseOf = remembered(toCamelCase);
const snakeCaseOf = remembered(toSnakeCase);

function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    // Shapes, of which there are as many as tensors, have nothing to rename.
    return value.every((item) => typeof item === "number") ? value : value.map((item) => renameKeys(item, rename));
  }
  const renamed: Record<string, unknown> = {};
  for (const key of Object.keys(value)) {
    // Assigned, it would become the prototype. No schema has it, and labels are not renamed.
    if (key === "__proto__") continue;
    const item = (value as WireObject)[key];
    renamed[rename(key)] = key === "labels" ? item : renameKeys(item, rename);
  }
  return renamed;
}

export function isObject(value: unknown): value is WireObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The body of a success. @throws TensordError what the problem says */
export function expectSuccess({ status, body }: { readonly status: number; readonly body: unknown }): unknown {
  if (status >= 200 && status < 300) return body;
  if (isObject(body)) throw fromProblem(status, fromWire(body) as Record<string, unknown>);
  if (status === 503) {
    throw new TensordError("server-unavailable", "Cannot use tensord: it answered 503 without a reason", { status });
  }
  const detail = `The answer is status ${status} and no problem: is this a tensord server?`;
  throw fromProblem(status, { detail });
}

/** Reads a region's JSON. @throws TensordError `server-fault` if it is not one. */
export function parseDescriptor(value: unknown): RegionDescriptor {
  if (!isRegion(value) || !Array.isArray(value.tensors) || !value.tensors.every(isTensor)) {
    throw notA("region descriptor");
  }
  return fromWire(value) as RegionDescriptor;
}

/** Reads a list's item. @throws TensordError `server-fault` if it is no region */
export function parseListedRegion(value: unknown): ListedRegion {
  if (!isRegion(value) || !isSize(value.tensor_count)) throw notA("region");
  return fromWire(value) as ListedRegion;
}

/** Reads the items of a group. @throws TensordError `server-fault` if it is none */
export function parseGroup<Item>(value: unknown, parseItem: (item: unknown) => Item): readonly Item[] {
  if (!isObject(value) || !Array.isArray(value.items)) throw notA("group");
  return value.items.map(parseItem);
}

/** Reads an answer whose fields nothing here relies on. @throws TensordError `server-fault` if it is no object. */
export function parseObject<Type>(value: unknown): Type {
  if (!isObject(value)) throw notA("JSON object");
  return fromWire(value) as Type;
}

/** Reads the answer of a claim. @throws TensordError `server-fault` if it is none. */
export function parseClaim(value: unknown): Claim {
  if (!isObject(value) || (value.role === "builder") !== isText(value.claim)) throw notA("claim");
  const region = value.region === null ? null : parseDescriptor(value.region);
  return { role: value.role === "builder" ? "builder" : "reader", claim: value.claim as string | null, region };
}

function isRegion(value: unknown): value is WireObject {
  if (!isObject(value) || !isObject(value.storage)) return false;
  const { storage } = value;
  return (
    [value.id, value.model, value.state, value.created_at, storage.kind].every(isText) &&
    isSize(storage.byte_size) &&
    // What another kind of storage has instead is for a newer client: this one reads of it, and maps it not.
    (!isMappable(storage.kind) ||
      ((storage.path === null || isText(storage.path)) && [storage.dev, storage.ino].every(isIdentity)))
  );
}

/** Whether this package knows storage of that kind: host memory, by the name of a file, by a descriptor, or as a copy; or a file of somebody else's. */
export function isMappable(kind: unknown): boolean {
  return kind === "shm" || kind === "memfd" || kind === "heap" || kind === "file";
}

/** Whether storage of that kind is memory of a device, of which only descriptors come here. */
export function isOnDevice(kind: unknown): boolean {
  return kind === "cuda_vmm";
}

/** What a region on a device is made of. `granularity`: what addresses and sizes of its mappings are multiples of. */
export interface DeviceStorage {
  readonly deviceUuid: string;
  /** What its descriptor is: `posix_fd`, or what a newer server has. */
  readonly handleType: string;
  /** What is to be mapped, all of it. */
  readonly allocationBytes: number;
  readonly granularity: number;
}

/** @throws TensordError `server-fault` if it is not described */
export function toDeviceStorage({ storage }: RegionDescriptor): DeviceStorage {
  const { deviceUuid, handleType, allocationBytes, granularity } = storage;
  const isWhole =
    isText(deviceUuid) &&
    isText(handleType) &&
    isSize(allocationBytes) &&
    isSize(granularity) &&
    [storage.dev, storage.ino].every(isIdentity);
  if (!isWhole) throw notA("region on a device");
  return { deviceUuid, handleType, allocationBytes, granularity } as DeviceStorage;
}

function isTensor(value: unknown): boolean {
  return (
    isObject(value) &&
    [value.name, value.dtype].every(isText) &&
    [value.byte_offset, value.byte_size].every(isSize) &&
    (value.alias_of === null || isText(value.alias_of)) &&
    Array.isArray(value.shape) &&
    value.shape.every(isSize)
  );
}

const isText = (value: unknown) => typeof value === "string";
const isSize = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isIdentity = (value: unknown) => typeof value === "string" && /^[0-9]{1,20}$/.test(value);

function notA(what: string): TensordError {
  return new TensordError("server-fault", `Cannot read the server's answer: it is no ${what}`, {
    hint: "is the server another version, or is TENSORD_URL something else's address?",
  });
}

/** How messages call a region: its id, and its name if it has one. */
export function shown({ id, model, name, version }: RegionDescriptor): string {
  return name === null || name === undefined ? id : `${id} (${model}/${name}${shownVersion(version)})`;
}

/** How messages go on behind a name. */
export function shownVersion(version: string | undefined): string {
  return version ? `, version ${version}` : "";
}
