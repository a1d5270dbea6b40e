/**
 * Device storage without a driver, for what is asked of every storage and of every route: the "memory" of a device is memfds of this process. How the
 * driver is called is seen in `tests/faults/device-*.test.ts`.
 */

import { closeSync, ftruncateSync, writeSync } from "node:fs";
import type { CopierWork, DeviceCopier } from "../../../src/cuda/copiers.ts";
import type { UsableDevice } from "../../../src/cuda/device-calls.ts";
import type { DeviceDriver } from "../../../src/cuda/device-lane.ts";
import { DeviceState } from "../../../src/cuda/device-state.ts";
import { DeviceStorage } from "../../../src/cuda/device-storage.ts";
import { TensordError } from "../../../src/memory/error.ts";
import { toChunks } from "../../../src/memory/layout/checksum.ts";
import { MiB } from "../../../src/memory/limits.ts";
import { readWhole } from "../../../src/memory/os/files.ts";
import { duplicateDescriptor } from "../../../src/memory/os/libc.ts";
import { createMemfd } from "../../../src/memory/os/libc-memory.ts";
import type { Memfds } from "../../../src/memory/storage/memfd/memfds.ts";

export const fakeDevice: UsableDevice = {
  uuid: "GPU-00000000-0000-4000-8000-000000000000",
  name: "fake",
  ordinal: 0,
  totalBytes: 256 * MiB,
  granularity: 2 * MiB,
};

class FakeDriver implements DeviceDriver {
  readonly #sizes = new Map<bigint, number>();

  async create({ totalBytes }: UsableDevice, byteSize: number, signal: AbortSignal): Promise<bigint> {
    signal.throwIfAborted();
    const used = [...this.#sizes.values()].reduce((sum, each) => sum + each, 0);
    if (used + byteSize > totalBytes) {
      const facts = { requested_bytes: byteSize, hint: "Delete regions on it." };
      throw new TensordError(
        "out-of-device-memory",
        `Cannot allocate ${byteSize} bytes on the device: ${totalBytes - used} are free`,
        facts,
      );
    }
    const fd = createMemfd("fake-device");
    ftruncateSync(fd, byteSize);
    this.#sizes.set(BigInt(fd), byteSize);
    return BigInt(fd);
  }

  async export(_: string, handle: bigint): Promise<number> {
    return duplicateDescriptor(Number(handle));
  }

  async release(_: string, handle: bigint): Promise<void> {
    if (this.#sizes.delete(handle)) closeSync(Number(handle));
  }

  async close(fd: number): Promise<void> {
    closeSync(fd);
  }

  within<Value>(_: string, work: Promise<Value>): Promise<Value> {
    return work;
  }

  [Symbol.dispose](): void {
    for (const handle of this.#sizes.keys()) closeSync(Number(handle));
    this.#sizes.clear();
  }
}

/** Moves bytes by itself, in chunks, and says so as a copier does. */
class FakeCopier implements DeviceCopier {
  async run({ deed, byteSize, sourceOffset, handle, source = -1 }: CopierWork, onChunk: (byteSize: number) => void) {
    const hashes: bigint[] = [];
    for (const chunk of toChunks(0, byteSize)) {
      const bytes = Buffer.alloc(chunk.byteSize);
      if (deed === "hash") readWhole(handle, bytes, chunk.byteOffset);
      else {
        readWhole(source, bytes, sourceOffset + chunk.byteOffset);
        writeSync(handle, bytes, 0, bytes.length, chunk.byteOffset);
      }
      hashes.push(Bun.hash.xxHash3(bytes));
      await Bun.sleep(0);
      onChunk(chunk.byteSize);
    }
    return hashes;
  }

  [Symbol.dispose](): void {}
}

export function createDeviceStorage(
  memfds: Memfds,
  device = fakeDevice,
  copier: DeviceCopier = new FakeCopier(),
): DeviceStorage {
  return new DeviceStorage(new DeviceState(device.uuid, device), new FakeDriver(), copier, memfds, undefined);
}
