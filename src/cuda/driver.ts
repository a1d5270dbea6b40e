/**
 * The CUDA driver without a context: one checked method for each call, which throws with the driver's own words. It takes no GPU
 * memory but what it is told to create. Calls may take long and crash: a Worker or a child makes them, never the event loop.
 */

import assert from "node:assert/strict";
import { addressOf } from "../memory/os/ffi.ts";
import { NoDriver, results } from "./driver-error.ts";
import {
  type Attribute,
  allocationLayout,
  allocationTypePinned,
  attributes,
  granularities,
  handleTypePosixFd,
  locationTypeDevice,
  uuidByteSize,
} from "./layouts.ts";
import { check, libraryName, openLibcuda, toDriverError, toText } from "./libcuda.ts";

/** One allocation of a device (CUmemGenericAllocationHandle), which means something in the process that has it only. */
export type AllocationHandle = bigint & { readonly allocation: unique symbol };

const nameByteSize = 256;
const busIdByteSize = 32;

/** What every driver has had for longer than there is a `libcuda.so.1` to be met. */
const oldest = {
  // CUresult cuInit(unsigned int flags);
  cuInit: { args: ["u32"], returns: "i32" },
  // CUresult cuDriverGetVersion(int *version);
  cuDriverGetVersion: { args: ["u64"], returns: "i32" },
} as const;

const functions = {
  // CUresult cuDeviceGetCount(int *count);
  cuDeviceGetCount: { args: ["u64"], returns: "i32" },
  // CUresult cuDeviceGet(CUdevice *device, int ordinal);
  cuDeviceGet: { args: ["u64", "i32"], returns: "i32" },
  // CUresult cuDeviceGetName(char *name, int len, CUdevice dev);
  cuDeviceGetName: { args: ["u64", "i32", "i32"], returns: "i32" },
  // CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev); since CUDA 11.4, and tells instances of MIG apart.
  cuDeviceGetUuid_v2: { args: ["u64", "i32"], returns: "i32" },
  // CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev);
  cuDeviceGetPCIBusId: { args: ["u64", "i32", "i32"], returns: "i32" },
  // CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev);
  cuDeviceTotalMem_v2: { args: ["u64", "i32"], returns: "i32" },
  // CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev);
  cuDeviceGetAttribute: { args: ["u64", "i32", "i32"], returns: "i32" },
  // CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop, …flags option);
  cuMemGetAllocationGranularity: { args: ["u64", "u64", "i32"], returns: "i32" },
  // CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags);
  cuMemCreate: { args: ["u64", "u64", "u64", "u64"], returns: "i32" },
  // CUresult cuMemRelease(CUmemGenericAllocationHandle handle);
  cuMemRelease: { args: ["u64"], returns: "i32" },
  // CUresult cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle, …HandleType type, unsigned long long flags);
  cuMemExportToShareableHandle: { args: ["u64", "u64", "i32", "u64"], returns: "i32" },
} as const;

/** The functions of this file, by the names that the library must have. */
export const driverFunctions = { ...oldest, ...functions } as const;

const bindFunctions = () => openLibcuda().bind(functions);
type Functions = ReturnType<typeof bindFunctions>;

export class Driver {
  readonly #c: Functions;
  /** As the driver counts: 13000 is CUDA 13.0. */
  readonly version: number;

  private constructor(c: Functions, version: number) {
    this.#c = c;
    this.version = version;
  }

  /**
   * Loads the driver and starts it, which makes no context. It takes tens of milliseconds at first.
   * @throws NoDriver if there is none, it is too old, or shows no device; DriverError for whatever else the driver says.
   */
  static open(): Driver {
    const library = openLibcuda();
    const lacks = library.missing(Object.keys(driverFunctions));
    const version = lacks.includes("cuDriverGetVersion") ? null : readVersion();
    if (lacks.length > 0) {
      const is = version === null ? "" : ` (CUDA ${toVersionText(version)})`;
      throw new NoDriver("too-old", `${libraryName}${is} has no ${lacks.join(", ")}: want CUDA 11.4 or newer`);
    }
    const result = library.bind(oldest).cuInit(0);
    if (result === results.noDevice) throw new NoDriver("no-device", toDriverError("cuInit", result).message);
    check("cuInit", result);
    return new Driver(bindFunctions(), version ?? 0);
  }

  /** How many this process sees: CUDA_VISIBLE_DEVICES and a container's runtime may hide some. */
  deviceCount(): number {
    const out = Buffer.alloc(4);
    check("cuDeviceGetCount", this.#c.cuDeviceGetCount(addressOf(out)));
    return out.readInt32LE();
  }

  /** @param ordinal its place in this process, which is another one in another process. @returns what the other methods take. */
  device(ordinal: number): number {
    checkInt(ordinal);
    const out = Buffer.alloc(4);
    check("cuDeviceGet", this.#c.cuDeviceGet(addressOf(out), ordinal));
    return out.readInt32LE();
  }

  /** The device of that UUID as this process counts; undefined if it does not see it. */
  findDevice(uuid: string): number | undefined {
    const ordinals = Array.from({ length: this.deviceCount() }, (_, ordinal) => ordinal);
    return ordinals.map((ordinal) => this.device(ordinal)).find((device) => this.uuid(device) === uuid);
  }

  name(device: number): string {
    checkInt(device);
    const out = Buffer.alloc(nameByteSize);
    check("cuDeviceGetName", this.#c.cuDeviceGetName(addressOf(out), out.length, device));
    return toText(out);
  }

  /** `GPU-…`, or `MIG-…` of an instance: the same in every process, on every start. */
  uuid(device: number): string {
    checkInt(device);
    const out = Buffer.alloc(uuidByteSize);
    check("cuDeviceGetUuid_v2", this.#c.cuDeviceGetUuid_v2(addressOf(out), device));
    return toUuidText(out, this.name(device));
  }

  /** Its PCI address, `0000:19:00.0`. */
  busId(device: number): string {
    checkInt(device);
    const out = Buffer.alloc(busIdByteSize);
    check("cuDeviceGetPCIBusId", this.#c.cuDeviceGetPCIBusId(addressOf(out), out.length, device));
    return toText(out).toLowerCase();
  }

  /** All its memory, whoever uses it. */
  totalBytes(device: number): number {
    checkInt(device);
    const out = Buffer.alloc(8);
    check("cuDeviceTotalMem_v2", this.#c.cuDeviceTotalMem_v2(addressOf(out), device));
    return Number(out.readBigUInt64LE());
  }

  attribute(device: number, attribute: Attribute): number {
    checkInt(device);
    const out = Buffer.alloc(4);
    check("cuDeviceGetAttribute", this.#c.cuDeviceGetAttribute(addressOf(out), attributes[attribute], device));
    return out.readInt32LE();
  }

  /** What the size of an allocation must be a multiple of, in bytes. */
  granularity(device: number, kind: keyof typeof granularities = "minimum"): number {
    const out = Buffer.alloc(8);
    const property = toAllocationProperty(device);
    const call = this.#c.cuMemGetAllocationGranularity;
    check("cuMemGetAllocationGranularity", call(addressOf(out), addressOf(property), granularities[kind]));
    return Number(out.readBigUInt64LE());
  }

  /**
   * Memory of the device that can be exported. It stands until the handle is released and whatever was exported or mapped of it
   * is gone. @param byteSize a multiple of the granularity.
   */
  create(device: number, byteSize: number): AllocationHandle {
    assert(Number.isSafeInteger(byteSize) && byteSize > 0, `not a size: ${byteSize}`);
    const out = Buffer.alloc(8);
    const property = toAllocationProperty(device);
    const { cuMemCreate } = this.#c;
    check("cuMemCreate", cuMemCreate(addressOf(out), BigInt(byteSize), addressOf(property), 0n));
    return out.readBigUInt64LE() as AllocationHandle;
  }

  release(handle: AllocationHandle): void {
    check("cuMemRelease", this.#c.cuMemRelease(handle));
  }

  /** @returns a descriptor that keeps the memory by itself, and is the caller's to close. Each call makes another one. */
  exportFd(handle: AllocationHandle): number {
    // The driver writes an int.
    const out = Buffer.alloc(8, 0xff);
    const call = this.#c.cuMemExportToShareableHandle;
    check("cuMemExportToShareableHandle", call(addressOf(out), handle, handleTypePosixFd, 0n));
    return out.readInt32LE();
  }
}

function readVersion(): number {
  const out = Buffer.alloc(4);
  const { cuDriverGetVersion } = openLibcuda().bind({ cuDriverGetVersion: oldest.cuDriverGetVersion });
  check("cuDriverGetVersion", cuDriverGetVersion(addressOf(out)));
  return out.readInt32LE();
}

/** 12040 is 12.4. */
export function toVersionText(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

/** The driver tells the bytes of an instance of MIG as those of a whole GPU; that it is one stands in its name alone. */
function toUuidText(bytes: Buffer, name: string): string {
  const digits = bytes.toString("hex");
  const groups = [
    digits.slice(0, 8),
    digits.slice(8, 12),
    digits.slice(12, 16),
    digits.slice(16, 20),
    digits.slice(20),
  ];
  return `${/\bMIG\b/.test(name) ? "MIG" : "GPU"}-${groups.join("-")}`;
}

export function checkInt(value: number): void {
  assert(Number.isInteger(value) && value >= 0 && value < 2 ** 31, `not an int: ${value}`);
}

/** Device memory of the plainest kind, exportable as a file descriptor. */
function toAllocationProperty(device: number): Buffer {
  checkInt(device);
  const property = Buffer.alloc(allocationLayout.byteSize);
  property.writeUInt32LE(allocationTypePinned, allocationLayout.type);
  property.writeUInt32LE(handleTypePosixFd, allocationLayout.handleTypes);
  property.writeUInt32LE(locationTypeDevice, allocationLayout.locationType);
  property.writeInt32LE(device, allocationLayout.locationId);
  return property;
}
