/**
 * The CUDA driver with a context, which takes hundreds of MB of GPU memory and breaks for good at the first illegal access: for
 * child processes that do one thing and exit, never for the server. What a process leaves behind here goes when it ends.
 */

import assert from "node:assert/strict";
import { type Address, addressOf } from "../memory/os/ffi.ts";
import { type AllocationHandle, checkInt, type Driver } from "./driver.ts";
import { results } from "./driver-error.ts";
import {
  accesses,
  accessLayout,
  eventDisableTiming,
  handleTypePosixFd,
  locationTypeDevice,
  registrations,
  streamNonBlocking,
} from "./layouts.ts";
import { check, openLibcuda, toDriverError } from "./libcuda.ts";

/** An address of a device (CUdeviceptr). The processor reaches nothing there. */
export type DeviceAddress = bigint & { readonly device: unique symbol };
/** Work that is done in order, beside other work (CUstream). */
export type Stream = bigint & { readonly stream: unique symbol };
/** A mark in a stream (CUevent). */
export type Mark = bigint & { readonly mark: unique symbol };

const functions = {
  // CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev);
  cuDevicePrimaryCtxRetain: { args: ["u64", "i32"], returns: "i32" },
  // CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev);
  cuDevicePrimaryCtxRelease_v2: { args: ["i32"], returns: "i32" },
  // CUresult cuCtxSetCurrent(CUcontext ctx);
  cuCtxSetCurrent: { args: ["u64"], returns: "i32" },
  // CUresult cuCtxSynchronize(void);
  cuCtxSynchronize: { args: [], returns: "i32" },
  // CUresult cuMemGetInfo_v2(size_t *free, size_t *total);
  cuMemGetInfo_v2: { args: ["u64", "u64"], returns: "i32" },
  // CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle, …HandleType type);
  cuMemImportFromShareableHandle: { args: ["u64", "u64", "i32"], returns: "i32" },
  // CUresult cuMemRelease(CUmemGenericAllocationHandle handle);
  cuMemRelease: { args: ["u64"], returns: "i32" },
  // CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr, unsigned long long flags);
  cuMemAddressReserve: { args: ["u64", "u64", "u64", "u64", "u64"], returns: "i32" },
  // CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size);
  cuMemAddressFree: { args: ["u64", "u64"], returns: "i32" },
  // CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags);
  cuMemMap: { args: ["u64", "u64", "u64", "u64", "u64"], returns: "i32" },
  // CUresult cuMemUnmap(CUdeviceptr ptr, size_t size);
  cuMemUnmap: { args: ["u64", "u64"], returns: "i32" },
  // CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count);
  cuMemSetAccess: { args: ["u64", "u64", "u64", "u64"], returns: "i32" },
  // CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags);
  cuMemHostAlloc: { args: ["u64", "u64", "u32"], returns: "i32" },
  // CUresult cuMemFreeHost(void *p);
  cuMemFreeHost: { args: ["u64"], returns: "i32" },
  // CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags);
  cuMemHostRegister_v2: { args: ["u64", "u64", "u32"], returns: "i32" },
  // CUresult cuMemHostUnregister(void *p);
  cuMemHostUnregister: { args: ["u64"], returns: "i32" },
  // CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t ByteCount, CUstream hStream);
  cuMemcpyHtoDAsync_v2: { args: ["u64", "u64", "u64", "u64"], returns: "i32" },
  // CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t ByteCount, CUstream hStream);
  cuMemcpyDtoHAsync_v2: { args: ["u64", "u64", "u64", "u64"], returns: "i32" },
  // CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char uc, size_t N, CUstream hStream);
  cuMemsetD8Async: { args: ["u64", "u8", "u64", "u64"], returns: "i32" },
  // CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags);
  cuStreamCreate: { args: ["u64", "u32"], returns: "i32" },
  // CUresult cuStreamSynchronize(CUstream hStream);
  cuStreamSynchronize: { args: ["u64"], returns: "i32" },
  // CUresult cuStreamDestroy_v2(CUstream hStream);
  cuStreamDestroy_v2: { args: ["u64"], returns: "i32" },
  // CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags);
  cuEventCreate: { args: ["u64", "u32"], returns: "i32" },
  // CUresult cuEventRecord(CUevent hEvent, CUstream hStream);
  cuEventRecord: { args: ["u64", "u64"], returns: "i32" },
  // CUresult cuEventQuery(CUevent hEvent);
  cuEventQuery: { args: ["u64"], returns: "i32" },
  // CUresult cuEventSynchronize(CUevent hEvent);
  cuEventSynchronize: { args: ["u64"], returns: "i32" },
  // CUresult cuEventDestroy_v2(CUevent hEvent);
  cuEventDestroy_v2: { args: ["u64"], returns: "i32" },
} as const;

/** The functions of this file, by the names that the library must have. */
export const contextFunctions = functions;

const bindFunctions = () => openLibcuda().bind(functions);
type Functions = ReturnType<typeof bindFunctions>;

/** One thread's hold on a device's primary context. All its calls are about that device, and are made by that thread. */
export class Context implements Disposable {
  readonly #c: Functions;
  readonly #device: number;

  private constructor(c: Functions, device: number) {
    this.#c = c;
    this.#device = device;
  }

  /** Makes the device's context, or takes part in it, and makes it this thread's. @param device what `Driver.device` answered. */
  static open(_driver: Driver, device: number): Context {
    checkInt(device);
    const c = bindFunctions();
    const out = Buffer.alloc(8);
    check("cuDevicePrimaryCtxRetain", c.cuDevicePrimaryCtxRetain(addressOf(out), device));
    const context = new Context(c, device);
    try {
      check("cuCtxSetCurrent", c.cuCtxSetCurrent(out.readBigUInt64LE()));
    } catch (error) {
      c.cuDevicePrimaryCtxRelease_v2(device);
      throw error;
    }
    return context;
  }

  /** The context goes once nobody in the process holds it; a broken one cannot be left in good order, so nothing is thrown. */
  [Symbol.dispose](): void {
    this.#c.cuCtxSetCurrent(0n);
    this.#c.cuDevicePrimaryCtxRelease_v2(this.#device);
  }

  /** Waits for all work of this process on the device. */
  synchronize(): void {
    check("cuCtxSynchronize", this.#c.cuCtxSynchronize());
  }

  memoryInfo(): { readonly freeBytes: number; readonly totalBytes: number } {
    const [free, total] = [Buffer.alloc(8), Buffer.alloc(8)];
    check("cuMemGetInfo_v2", this.#c.cuMemGetInfo_v2(addressOf(free), addressOf(total)));
    return { freeBytes: Number(free.readBigUInt64LE()), totalBytes: Number(total.readBigUInt64LE()) };
  }

  /** Memory that another process exported. @param fd stays the caller's. @returns what has to be released, for each import. */
  importFd(fd: number): AllocationHandle {
    checkInt(fd);
    const out = Buffer.alloc(8);
    // The descriptor's number is the pointer.
    const call = this.#c.cuMemImportFromShareableHandle;
    check("cuMemImportFromShareableHandle", call(addressOf(out), BigInt(fd), handleTypePosixFd));
    return out.readBigUInt64LE() as AllocationHandle;
  }

  /** What is mapped stays. */
  release(handle: AllocationHandle): void {
    check("cuMemRelease", this.#c.cuMemRelease(handle));
  }

  /** Addresses without memory. @param alignment a power of two; 0: the device's granularity. */
  reserve(byteSize: number, alignment = 0): DeviceAddress {
    const out = Buffer.alloc(8);
    const call = this.#c.cuMemAddressReserve;
    check("cuMemAddressReserve", call(addressOf(out), toSize(byteSize), toSize(alignment), 0n, 0n));
    return out.readBigUInt64LE() as DeviceAddress;
  }

  /** @param byteSize as it was reserved; nothing may be mapped there any more. */
  free(address: DeviceAddress, byteSize: number): void {
    check("cuMemAddressFree", this.#c.cuMemAddressFree(address, toSize(byteSize)));
  }

  /** Maps a whole allocation, which nobody may touch before `setAccess`. */
  map(address: DeviceAddress, byteSize: number, handle: AllocationHandle): void {
    check("cuMemMap", this.#c.cuMemMap(address, toSize(byteSize), 0n, handle, 0n));
  }

  /** Unmaps exactly one mapping. It waits for no work that uses it: `synchronize` first. */
  unmap(address: DeviceAddress, byteSize: number): void {
    check("cuMemUnmap", this.#c.cuMemUnmap(address, toSize(byteSize)));
  }

  /** @param byteSize of one mapping, or of several that follow each other. */
  setAccess(address: DeviceAddress, byteSize: number, access: keyof typeof accesses): void {
    const description = Buffer.alloc(accessLayout.byteSize);
    description.writeUInt32LE(locationTypeDevice, accessLayout.locationType);
    description.writeInt32LE(this.#device, accessLayout.locationId);
    description.writeUInt32LE(accesses[access], accessLayout.flags);
    check("cuMemSetAccess", this.#c.cuMemSetAccess(address, toSize(byteSize), addressOf(description), 1n));
  }

  /** Host memory that the device reaches without the processor. */
  allocateHost(byteSize: number): Address {
    const out = Buffer.alloc(8);
    check("cuMemHostAlloc", this.#c.cuMemHostAlloc(addressOf(out), toSize(byteSize), 0));
    return out.readBigUInt64LE() as Address;
  }

  freeHost(address: Address): void {
    check("cuMemFreeHost", this.#c.cuMemFreeHost(address));
  }

  /** Pins memory that this process maps; with `readOnly` also what it may not write, where the device can. */
  registerHost(address: Address, byteSize: number, { readOnly = false } = {}): void {
    const flags = registrations.portable | (readOnly ? registrations.readOnly : 0);
    check("cuMemHostRegister_v2", this.#c.cuMemHostRegister_v2(address, toSize(byteSize), flags));
  }

  unregisterHost(address: Address): void {
    check("cuMemHostUnregister", this.#c.cuMemHostUnregister(address));
  }

  createStream(): Stream {
    const out = Buffer.alloc(8);
    check("cuStreamCreate", this.#c.cuStreamCreate(addressOf(out), streamNonBlocking));
    return out.readBigUInt64LE() as Stream;
  }

  /** Waits for all that was queued. An error of that work comes out here. */
  synchronizeStream(stream: Stream): void {
    check("cuStreamSynchronize", this.#c.cuStreamSynchronize(stream));
  }

  destroyStream(stream: Stream): void {
    check("cuStreamDestroy_v2", this.#c.cuStreamDestroy_v2(stream));
  }

  /** Queues a copy. `from` must stay as it is until the stream has come there. */
  copyToDevice(to: DeviceAddress, from: Address, byteSize: number, stream: Stream): void {
    check("cuMemcpyHtoDAsync_v2", this.#c.cuMemcpyHtoDAsync_v2(to, from, toSize(byteSize), stream));
  }

  /** Queues a copy. `to` has the bytes once the stream has come there. */
  copyToHost(to: Address, from: DeviceAddress, byteSize: number, stream: Stream): void {
    check("cuMemcpyDtoHAsync_v2", this.#c.cuMemcpyDtoHAsync_v2(to, from, toSize(byteSize), stream));
  }

  /** Queues writing `value` to every byte. */
  fill(to: DeviceAddress, value: number, byteSize: number, stream: Stream): void {
    assert(Number.isInteger(value) && value >= 0 && value < 256, `not a byte: ${value}`);
    check("cuMemsetD8Async", this.#c.cuMemsetD8Async(to, value, toSize(byteSize), stream));
  }

  createMark(): Mark {
    const out = Buffer.alloc(8);
    check("cuEventCreate", this.#c.cuEventCreate(addressOf(out), eventDisableTiming));
    return out.readBigUInt64LE() as Mark;
  }

  /** Puts the mark behind all that is queued now. */
  record(mark: Mark, stream: Stream): void {
    check("cuEventRecord", this.#c.cuEventRecord(mark, stream));
  }

  /** Whether the stream has come there. */
  isReached(mark: Mark): boolean {
    const result = this.#c.cuEventQuery(mark);
    if (result === results.success) return true;
    if (result === results.notReady) return false;
    throw toDriverError("cuEventQuery", result);
  }

  waitFor(mark: Mark): void {
    check("cuEventSynchronize", this.#c.cuEventSynchronize(mark));
  }

  destroyMark(mark: Mark): void {
    check("cuEventDestroy_v2", this.#c.cuEventDestroy_v2(mark));
  }
}

function toSize(byteSize: number): bigint {
  assert(Number.isSafeInteger(byteSize) && byteSize >= 0, `not a size: ${byteSize}`);
  return BigInt(byteSize);
}
