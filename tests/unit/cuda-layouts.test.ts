/**
 * Structures, constants and functions of the CUDA driver as the binding has them, held against NVIDIA's own <cuda.h> by a C compiler: what
 * differs does not compile.
 */

import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { contextFunctions } from "../../src/cuda/context.ts";
import { driverFunctions } from "../../src/cuda/driver.ts";
import { results } from "../../src/cuda/driver-error.ts";
import * as layouts from "../../src/cuda/layouts.ts";
import { compileWith, findCudaHeaders, needsCudaHeaders } from "../harness/cuda-headers.ts";
import { testWith } from "../harness/instance-needs.ts";

const testHeaders = testWith(needsCudaHeaders);

const same = (c: string, value: number): string =>
  `_Static_assert(${c} == ${value}, "${c} is ${value} in the binding");`;
const offset = (type: string, member: string, value: number): string =>
  same(`(int)offsetof(${type}, ${member})`, value);

function assertions(): string[] {
  const { allocationLayout: allocation, accessLayout: access, attributes } = layouts;
  return [
    same("(int)sizeof(CUmemAllocationProp)", allocation.byteSize),
    offset("CUmemAllocationProp", "type", allocation.type),
    offset("CUmemAllocationProp", "requestedHandleTypes", allocation.handleTypes),
    offset("CUmemAllocationProp", "location.type", allocation.locationType),
    offset("CUmemAllocationProp", "location.id", allocation.locationId),
    same("(int)sizeof(CUmemAccessDesc)", access.byteSize),
    offset("CUmemAccessDesc", "location.type", access.locationType),
    offset("CUmemAccessDesc", "location.id", access.locationId),
    offset("CUmemAccessDesc", "flags", access.flags),
    same("(int)sizeof(CUuuid)", layouts.uuidByteSize),
    same("CU_MEM_ALLOCATION_TYPE_PINNED", layouts.allocationTypePinned),
    same("CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR", layouts.handleTypePosixFd),
    same("CU_MEM_LOCATION_TYPE_DEVICE", layouts.locationTypeDevice),
    same("CU_MEM_ALLOC_GRANULARITY_MINIMUM", layouts.granularities.minimum),
    same("CU_MEM_ALLOC_GRANULARITY_RECOMMENDED", layouts.granularities.recommended),
    same("CU_MEM_ACCESS_FLAGS_PROT_NONE", layouts.accesses.none),
    same("CU_MEM_ACCESS_FLAGS_PROT_READ", layouts.accesses.read),
    same("CU_MEM_ACCESS_FLAGS_PROT_READWRITE", layouts.accesses["read-write"]),
    same("CU_STREAM_NON_BLOCKING", layouts.streamNonBlocking),
    same("CU_EVENT_DISABLE_TIMING", layouts.eventDisableTiming),
    same("CU_MEMHOSTREGISTER_PORTABLE", layouts.registrations.portable),
    same("CU_MEMHOSTREGISTER_READ_ONLY", layouts.registrations.readOnly),
    same("CU_DEVICE_ATTRIBUTE_INTEGRATED", attributes.integrated),
    same("CU_DEVICE_ATTRIBUTE_COMPUTE_MODE", attributes.computeMode),
    same("CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING", attributes.unifiedAddressing),
    same("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", attributes.computeCapabilityMajor),
    same("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR", attributes.computeCapabilityMinor),
    same("CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED", attributes.virtualMemoryManagement),
    same("CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED", attributes.posixFdHandles),
    same("CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED", attributes.readOnlyHostRegister),
    ...Object.entries(layouts.computeModes).map(([mode, name]) =>
      same(`CU_COMPUTEMODE_${name.toUpperCase()}`, Number(mode)),
    ),
    ...Object.entries(results).map(([name, value]) => same(toResultName(name), value)),
  ];
}

/** `outOfMemory` is CUDA_ERROR_OUT_OF_MEMORY. */
function toResultName(name: string): string {
  return name === "success"
    ? "CUDA_SUCCESS"
    : `CUDA_ERROR_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

const byteSizes: Readonly<Record<string, number>> = { u64: 8, i32: 4, u32: 4, u8: 1 };

/** For each function its prototype in the header, whose arguments must be as many, and as large, as the binding passes. */
function prototypeAssertions(header: string): { readonly lines: string[]; readonly unknown: string[] } {
  const lines: string[] = [];
  const unknown: string[] = [];
  for (const [name, { args }] of Object.entries({ ...driverFunctions, ...contextFunctions })) {
    // The header names the function without its suffix, and a macro adds it.
    const plain = name.replace(/_v\d+$/, "");
    const prototype = new RegExp(`^CUresult CUDAAPI ${plain}\\(([^;]*)\\);`, "m").exec(header)?.[1];
    if (prototype === undefined) {
      unknown.push(name);
      continue;
    }
    const parameters = prototype === "void" ? [] : prototype.split(",").map((text) => text.trim());
    lines.push(
      `_Static_assert(${parameters.length} == ${args.length}, "${name} takes ${parameters.length} arguments");`,
    );
    for (const [i, parameter] of parameters.entries()) {
      const type = parameter.replace(/\w+$/, "").trim();
      lines.push(`_Static_assert(sizeof(${type}) == ${byteSizes[args[i] ?? ""] ?? 0}, "${name}: ${parameter}");`);
    }
    // That the macro leads to the name which is bound.
    if (plain !== name) lines.push(`extern __typeof__(${plain}) ${name};`);
  }
  return { lines, unknown };
}

testHeaders("structures and constants are those of cuda.h", async () => {
  expect(compileWith(assertions())).toBe("");
});

testHeaders("functions take the arguments that cuda.h declares", async () => {
  const { lines, unknown } = prototypeAssertions(readFileSync(join(findCudaHeaders() ?? "", "cuda.h"), "utf8"));
  expect(unknown).toEqual([]);
  expect(lines.length).toBeGreaterThan(60);
  expect(compileWith(lines)).toBe("");
});

testHeaders("a wrong offset, or a wrong size of an argument, does not compile", async () => {
  expect(compileWith([offset("CUmemAllocationProp", "location.id", 8)])).toContain("is 8 in the binding");
  expect(compileWith(['_Static_assert(sizeof(CUdevice) == 8, "too large");'])).toContain("too large");
});
