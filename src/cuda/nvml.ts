/**
 * NVIDIA's management library, `libnvidia-ml.so.1`: how much of a device is free, and whether its driver stays up, which the driver's library tells
 * nobody without a context. It may lack, refuse and hang; a Worker asks it.
 */

import { type Address, addressOf } from "../memory/os/ffi.ts";
import { OptionalLibrary } from "../memory/os/optional-library.ts";
import type { NvmlDevice } from "./nvml-calls.ts";

export const nvmlName = "libnvidia-ml.so.1";

/** <nvml.h>: NVML_SUCCESS, NVML_FEATURE_ENABLED, and nvmlMemory_t of three u64. */
const success = 0;
const enabled = 1;
const memoryLayout = { byteSize: 24, free: 8, used: 16 } as const;

const functions = {
  // nvmlReturn_t nvmlInit_v2(void);
  nvmlInit_v2: { args: [], returns: "i32" },
  // nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device); instances of MIG too.
  nvmlDeviceGetHandleByUUID: { args: ["u64", "u64"], returns: "i32" },
  // nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
  nvmlDeviceGetMemoryInfo: { args: ["u64", "u64"], returns: "i32" },
  // nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode);
  nvmlDeviceGetPersistenceMode: { args: ["u64", "u64"], returns: "i32" },
} as const;

/** What an old library does not have. */
const later = {
  // nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode, unsigned int *pendingMode);
  nvmlDeviceGetMigMode: { args: ["u64", "u64", "u64"], returns: "i32" },
} as const;

function bindFunctions() {
  const library = OptionalLibrary.open(nvmlName);
  const hasLater = library.missing(Object.keys(later)).length === 0;
  return { ...library.bind(functions), ...(hasLater ? library.bind(later) : { nvmlDeviceGetMigMode: undefined }) };
}

export class Nvml {
  readonly #c: ReturnType<typeof bindFunctions>;

  private constructor(c: ReturnType<typeof bindFunctions>) {
    this.#c = c;
  }

  /** Loads and starts it. @throws LibraryMissing; undefined if it does not start. */
  static open(): Nvml | undefined {
    const c = bindFunctions();
    return c.nvmlInit_v2() === success ? new Nvml(c) : undefined;
  }

  /** undefined: it does not know the device, which this process may be given all the same. */
  look(uuid: string): NvmlDevice | undefined {
    const device = this.#find(uuid);
    if (device === undefined) return undefined;
    const memory = Buffer.alloc(memoryLayout.byteSize);
    const isTold = this.#c.nvmlDeviceGetMemoryInfo(device, addressOf(memory)) === success;
    const mode = Buffer.alloc(4);
    const isModeTold = this.#c.nvmlDeviceGetPersistenceMode(device, addressOf(mode)) === success;
    return {
      isPersistent: isModeTold ? mode.readInt32LE() === enabled : null,
      freeBytes: isTold ? Number(memory.readBigUInt64LE(memoryLayout.free)) : null,
      usedBytes: isTold ? Number(memory.readBigUInt64LE(memoryLayout.used)) : null,
      isDivided: this.#isDivided(device),
    };
  }

  #isDivided(device: Address): boolean | null {
    const [current, pending] = [Buffer.alloc(4), Buffer.alloc(4)];
    const result = this.#c.nvmlDeviceGetMigMode?.(device, addressOf(current), addressOf(pending));
    return result === success ? current.readInt32LE() === enabled : null;
  }

  #find(uuid: string): Address | undefined {
    const text = Buffer.from(`${uuid}\0`);
    const out = Buffer.alloc(8);
    const result = this.#c.nvmlDeviceGetHandleByUUID(addressOf(text), addressOf(out));
    return result === success ? (out.readBigUInt64LE() as Address) : undefined;
  }
}
