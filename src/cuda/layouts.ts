/** Structures and constants of the CUDA driver, as <cuda.h> has them. A test compiles them against that file. */

/** CUmemAllocationProp. What is not named is zero: no Windows data, no compression, no RDMA, no usage. */
export const allocationLayout = { byteSize: 32, type: 0, handleTypes: 4, locationType: 8, locationId: 12 } as const;

/** CUmemAccessDesc. */
export const accessLayout = { byteSize: 12, locationType: 0, locationId: 4, flags: 8 } as const;

/** CUuuid. */
export const uuidByteSize = 16;

/** CU_MEM_ALLOCATION_TYPE_PINNED: the only type that there is for device memory. */
export const allocationTypePinned = 1;
/** CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR. */
export const handleTypePosixFd = 1;
/** CU_MEM_LOCATION_TYPE_DEVICE. */
export const locationTypeDevice = 1;
/** CU_MEM_ALLOC_GRANULARITY_MINIMUM and _RECOMMENDED. */
export const granularities = { minimum: 0, recommended: 1 } as const;
/** CU_MEM_ACCESS_FLAGS_PROT_*. */
export const accesses = { none: 0, read: 1, "read-write": 3 } as const;
/** CU_STREAM_NON_BLOCKING. */
export const streamNonBlocking = 1;
/** CU_EVENT_DISABLE_TIMING. */
export const eventDisableTiming = 2;
/** CU_MEMHOSTREGISTER_*. */
export const registrations = { portable: 1, readOnly: 8 } as const;

/** CUdevice_attribute. */
export const attributes = {
  integrated: 18,
  computeMode: 20,
  unifiedAddressing: 41,
  computeCapabilityMajor: 75,
  computeCapabilityMinor: 76,
  virtualMemoryManagement: 102,
  posixFdHandles: 103,
  readOnlyHostRegister: 113,
} as const;
export type Attribute = keyof typeof attributes;

/** CUcomputemode, of which there is no 1 any more. */
export const computeModes = { 0: "default", 2: "prohibited", 3: "exclusive_process" } as const;
