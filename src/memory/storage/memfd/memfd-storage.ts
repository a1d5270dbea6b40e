/**
 * Regions without a name: memory that only descriptors lead to, which the kernel lets neither shrink nor grow, and whose seal is the
 * kernel's own. One storage for the system's usual pages, and one for each size of huge pages.
 */

import { SystemError } from "../../error.ts";
import type { StorageEnd } from "../../host/capabilities.ts";
import { listHugePageBytes } from "../../host/memory-space.ts";
import { FileBytes } from "../file-bytes.ts";
import type { HostLanes } from "../lane.ts";
import { type HugePage, hugePageBytes, type OnAllocationStep, type Storage, type StorageForm } from "../storage.ts";
import { HugeBytes } from "./huge-bytes.ts";
import { MemfdFiles } from "./memfd-files.ts";
import { MemfdMemory } from "./memfd-memory.ts";
import { MemfdNames } from "./memfd-names.ts";
import type { Memfds } from "./memfds.ts";

export class MemfdStorage implements Storage {
  readonly kind = "memfd";
  readonly form: StorageForm;
  readonly device = null;
  readonly hasHeader = true;
  readonly isMappable = true;
  readonly isPrivate = true;
  readonly hugePage: HugePage | null;
  readonly endsWith: StorageEnd;
  readonly memory: MemfdMemory;
  readonly names: MemfdNames;
  readonly bytes: FileBytes;

  /** @throws SystemError if this host gives no such memory. */
  constructor(memfds: Memfds, lanes: HostLanes, hugePage: HugePage | null = null, onStep?: OnAllocationStep) {
    this.form = hugePage === null ? "memfd" : `memfd-${hugePage}`;
    this.hugePage = hugePage;
    this.endsWith = memfds.holder === undefined ? "server" : "container";
    const files = new MemfdFiles(memfds, this.form);
    this.memory = new MemfdMemory(files, lanes, onStep);
    this.names = new MemfdNames(files);
    this.bytes = new (hugePage === null ? FileBytes : HugeBytes)(files, lanes.filling);
  }
}

/** Every form that this host has: none where the kernel, or a filter before it, refuses memfds. */
export function openMemfdStorages(memfds: Memfds, lanes: HostLanes, onStep?: OnAllocationStep): MemfdStorage[] {
  const sizes = new Set(listHugePageBytes());
  const hugePages = (Object.keys(hugePageBytes) as HugePage[]).filter((page) => sizes.has(hugePageBytes[page]));
  return [null, ...hugePages].flatMap((hugePage) =>
    unlessRefused(() => new MemfdStorage(memfds, lanes, hugePage, onStep)),
  );
}

/** None if the kernel refuses what it is made of. */
export function unlessRefused<Made>(make: () => Made): Made[] {
  try {
    return [make()];
  } catch (error) {
    if (error instanceof SystemError) return [];
    throw error;
  }
}
