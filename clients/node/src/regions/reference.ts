/**
 * The tensor reference: the few bytes that let another process map one tensor without asking the server. References arrive
 * from other processes, so reading one trusts nothing: every field has a type, a bound, and must agree with the others.
 */

import { posix } from "node:path";
import { isPlain, quote } from "../check/value.ts";
import { byteSizeOf, type Dtype, isDtype, maxDimensions } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import type { components } from "../generated/openapi.ts";
import { isMappable, isOnDevice, type TensorInfo } from "../http/wire.ts";
import type { Place } from "../memory/attach.ts";

const version = 1;
/** Host memory by the name of a file, unless it is private. Other kinds are read, and passed on; who maps them may refuse them. */
const shm = "shm";
const newerHint = "this version of the package maps nothing else: is there a newer one?";
const deviceHint =
  "it is memory of a device, which JavaScript cannot map: client.attachOnDevice(name) has its descriptor, for a native addon";

/** What to do about a region that cannot be mapped. */
export function unmappableHint(storage: string): string {
  return isOnDevice(storage) ? deviceHint : newerHint;
}
const maxJsonCharacters = 64 * 1024;
const maxPathCharacters = 4096;
const maxDeviceCharacters = 128;
const maxIdentity = 2n ** 64n - 1n;

const wireFields = [
  "v",
  "storage",
  "instance",
  "region",
  "path",
  "device_uuid",
  "dev",
  "ino",
  "byte_offset",
  "byte_size",
  "dtype",
  "shape",
  "generation",
] as const;
/** The first form of version 1 had host memory only. */
const firstFields = wireFields.filter((field) => field !== "storage" && field !== "device_uuid");

/** The wire form, as every client has it, in the version and with a dtype that this package knows. */
export type WireReference = Readonly<Omit<components["schemas"]["TensorReference"], "v" | "dtype">> & {
  readonly v: typeof version;
  readonly dtype: Dtype;
};

/**
 * One tensor, by the file that holds it: about 300 bytes as JSON, by `JSON.stringify`. `path`, `dev` and `ino` name the
 * file and prove that it is still the same one; `byteOffset` counts from its start, `byteSize` is the tensor's, `shape` in
 * elements of `dtype`. `generation` is 0 outside rings. `storage` is what the region is made of: `shm`, or what a newer
 * client knows how to map, without a `path` if it has no name, and with the `deviceUuid` of the device whose memory it is. What
 * has no `path` is opened through the server's broker, or, of `file` storage, where the server says that the file is.
 * It keeps nothing alive: whoever sends one sees to it that the region lives until it is opened.
 */
export class TensorReference {
  readonly storage: string;
  readonly instance: string;
  readonly region: string;
  readonly path: string | null;
  readonly deviceUuid: string | null;
  readonly dev: string;
  readonly ino: string;
  readonly byteOffset: number;
  readonly byteSize: number;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly generation: number;

  private constructor(wire: WireReference) {
    this.storage = wire.storage;
    this.instance = wire.instance;
    this.region = wire.region;
    this.path = wire.path;
    this.deviceUuid = wire.device_uuid;
    this.dev = wire.dev;
    this.ino = wire.ino;
    this.byteOffset = wire.byte_offset;
    this.byteSize = wire.byte_size;
    this.dtype = wire.dtype;
    this.shape = Object.freeze([...wire.shape]);
    this.generation = wire.generation;
    Object.freeze(this);
  }

  /**
   * Reads the wire form, as JSON text of at most 64 KiB or as what `JSON.parse` made of it; and what became of a reference
   * that was posted to a thread, or sent to a forked process. One of a later version is read by the fields that this one
   * has, and what else it has is ignored.
   * @throws TensordError `validation-failed` for anything else, unknown fields of this version among it
   */
  static parse(source: string | object): TensorReference {
    const value = typeof source === "string" ? parseJson(source) : source;
    return new TensorReference(check(isClone(value) ? toWireForm(value) : value));
  }

  /** The wire form; `dev` and `ino` are strings, since they are 64 bits wide. */
  toJSON(): WireReference {
    return {
      v: version,
      storage: this.storage,
      instance: this.instance,
      region: this.region,
      path: this.path,
      device_uuid: this.deviceUuid,
      dev: this.dev,
      ino: this.ino,
      byte_offset: this.byteOffset,
      byte_size: this.byteSize,
      dtype: this.dtype,
      shape: this.shape,
      generation: this.generation,
    };
  }
}

/** What stands for a reference where one is opened: itself, its JSON, or what a thread or a forked process got of it. */
export type AnyReference = TensorReference | WireReference | string;

/** @throws TensordError `validation-failed`, as `TensorReference.parse` */
export function toTensorReference(reference: AnyReference): TensorReference {
  return reference instanceof TensorReference ? reference : TensorReference.parse(reference);
}

/** The reference to a tensor of the file at `place`. @throws TensordError `validation-failed` if that is no region's file */
export function toReference(
  { region, storage = shm, instance, path: opened, dev, ino }: Place,
  { byteOffset, byteSize, dtype, shape }: Omit<TensorInfo, "name" | "aliasOf" | "logical">,
  generation = 0,
): TensorReference {
  // Of a file of somebody else's the server says where it is, and not whoever sends the reference.
  const path = storage === "file" ? null : opened;
  return TensorReference.parse({
    v: version,
    storage,
    instance: (path === null ? instance : instanceOf(path)) ?? "",
    region,
    path,
    device_uuid: null,
    dev,
    ino,
    byte_offset: byteOffset,
    byte_size: byteSize,
    dtype,
    shape,
    generation,
  });
}

/**
 * The file that holds a reference's tensor.
 * @throws TensordError `feature-unavailable` if it is in no such thing
 */
export function placeOf(reference: TensorReference): Place {
  const { region, storage, instance, path, dev, ino, byteOffset, byteSize } = reference;
  if (!isMappable(storage)) {
    const detail = `Cannot map the tensor at ${byteOffset} of ${region}: its storage is ${storage}, want shm, memfd, heap or file`;
    throw new TensordError("feature-unavailable", detail, { hint: unmappableHint(storage) });
  }
  return { region, storage, instance, path, dev, ino, byteSize: byteOffset + byteSize };
}

/** How messages call a reference. */
export function shownReference({ region, byteOffset, generation }: TensorReference): string {
  return `the tensor at ${byteOffset} of ${region}, generation ${generation}`;
}

/** The instance in the name of a region's file, or undefined if it is not such a name. */
function instanceOf(path: string): string | undefined {
  return /^tensord\.([a-z0-9-]{1,32})\.[a-z2-7]{26}$/.exec(path.slice(path.lastIndexOf("/") + 1))?.[1];
}

/** What a structured clone leaves of a reference: its fields, without its class. */
const cloneFields = [
  "storage",
  "instance",
  "region",
  "path",
  "deviceUuid",
  "dev",
  "ino",
  "byteOffset",
  "byteSize",
  "dtype",
  "shape",
  "generation",
] as const satisfies readonly (keyof TensorReference)[];

type Clone = Pick<TensorReference, (typeof cloneFields)[number]>;

function isClone(value: unknown): value is Clone {
  return typeof value === "object" && value !== null && isAll(new Set(Object.keys(value)), cloneFields);
}

function toWireForm({ deviceUuid, byteOffset, byteSize, ...rest }: Clone): object {
  return { v: version, device_uuid: deviceUuid, byte_offset: byteOffset, byte_size: byteSize, ...rest };
}

function parseJson(text: string): object {
  if (text.length > maxJsonCharacters) refuse("its JSON", `${text.length} characters`, `at most ${maxJsonCharacters}`);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TensordError("validation-failed", `Cannot read a tensor reference: it is no JSON (${cause})`, { cause });
  }
}

function check(value: unknown): WireReference {
  if (!isPlain(value)) refuse("it", value, "an object");
  const fields = new Set(Object.keys(value));
  const { v } = value;
  if (!Number.isSafeInteger(v) || (v as number) < version) refuse("v", v, `a whole number from ${version}`);
  const isFirst = v === version && isAll(fields, firstFields);
  const isKnown = v === version ? isFirst || isAll(fields, wireFields) : wireFields.every((field) => fields.has(field));
  if (!isKnown) refuse("its fields", [...fields].sort(), [...wireFields].sort().join(", "));
  const given = isFirst ? { ...value, storage: shm, device_uuid: null } : value;
  return { v: version, ...checkStorage(given), ...checkTensor(given) };
}

function isAll(fields: ReadonlySet<string>, wanted: readonly string[]): boolean {
  return fields.size === wanted.length && wanted.every((field) => fields.has(field));
}

function checkStorage(given: Readonly<Record<string, unknown>>) {
  const instance = checkText("instance", given.instance);
  const region = checkText("region", given.region);
  if (!/^reg_[a-z2-7]{26}$/.test(region)) refuse("region", region, "reg_ and 26 base32 characters");
  const storage = checkText("storage", given.storage);
  if (!/^[A-Za-z0-9_.-]{1,64}$/.test(storage)) refuse("storage", storage, "the word for a kind of storage");
  const [dev, ino] = [checkIdentity("dev", given.dev), checkIdentity("ino", given.ino)];
  const known = { storage, instance, region, dev, ino };
  if (isMappable(storage)) return { ...known, path: checkPath(given, storage, instance), device_uuid: null };
  // Whoever can map it knows what else must be true.
  const path = checkOptional("path", given.path, maxPathCharacters);
  return { ...known, path, device_uuid: checkOptional("device_uuid", given.device_uuid, maxDeviceCharacters) };
}

function checkPath(given: Readonly<Record<string, unknown>>, storage: string, instance: string): string | null {
  if (given.device_uuid !== null) refuse("device_uuid", given.device_uuid, `null, as ${storage} has it`);
  if (given.path === null) {
    // Its server's broker hands it out.
    if (!/^[a-z0-9-]{1,32}$/.test(instance)) refuse("instance", instance, "1 to 32 of a-z, 0-9 and -");
    return null;
  }
  if (storage !== shm) refuse("path", given.path, `null, as ${storage} has it`);
  const path = checkText("path", given.path);
  // Normal, so that no ".." walks out of what a reader of the path believes to see; resolving it would ask the disk.
  const isNormal = path.startsWith("/") && !path.includes("\0") && posix.normalize(path) === path;
  if (!isNormal || path.length > maxPathCharacters) refuse("path", path, "an absolute, normal path");
  if (instanceOf(path) !== instance) {
    refuse("path", path, `a file named tensord.${instance}.<26 base32 characters>`);
  }
  return path;
}

function checkTensor(given: Readonly<Record<string, unknown>>) {
  const byte_offset = checkInteger("byte_offset", given.byte_offset);
  const byte_size = checkInteger("byte_size", given.byte_size);
  const generation = checkInteger("generation", given.generation);
  const dtype = checkText("dtype", given.dtype);
  if (!isDtype(dtype)) refuse("dtype", dtype, "a safetensors dtype");
  const { shape } = given;
  if (!Array.isArray(shape) || shape.length > maxDimensions) {
    refuse("shape", shape, `a list of at most ${maxDimensions} sizes`);
  }
  const sizes = Array.from(shape, (size) => checkInteger("shape", size));
  const want = byteSizeOf(dtype, sizes);
  if (want !== byte_size) refuse("byte_size", byte_size, `${want}, which its shape and dtype make`);
  if (!Number.isSafeInteger(byte_offset + byte_size)) {
    refuse("byte_offset", byte_offset, `an end of at most ${Number.MAX_SAFE_INTEGER}`);
  }
  return { byte_offset, byte_size, dtype, shape: sizes, generation };
}

function checkIdentity(name: string, value: unknown): string {
  if (typeof value !== "string" || !/^[0-9]{1,20}$/.test(value)) refuse(name, value, "a decimal string");
  if (BigInt(value) > maxIdentity) refuse(name, value, `an integer from 0 to ${maxIdentity}`);
  // One spelling, since it is compared as text.
  return String(BigInt(value));
}

function checkOptional(name: string, value: unknown, limit: number): string | null {
  if (value === null) return null;
  if (typeof value === "string" && value !== "" && value.length <= limit) return value;
  refuse(name, value, `null, or text of at most ${limit} characters`);
}

function checkText(name: string, value: unknown): string {
  if (typeof value !== "string") refuse(name, value, "text");
  return value;
}

function checkInteger(name: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    refuse(name, value, `an integer from 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  return value as number;
}

function refuse(name: string, value: unknown, want: string | number): never {
  throw new TensordError(
    "validation-failed",
    `Cannot read a tensor reference: ${name} is ${quote(value)}, want ${want}`,
  );
}
