/**
 * Regions whose bytes the server keeps to itself: who makes one fills memory of his own and uploads that before the seal, who reads one
 * downloads it once. For processes that share no memory with the server. Here they lie in memfds that nobody is handed.
 */

import { TensordError } from "../../error.ts";
import type { StorageEnd } from "../../host/capabilities.ts";
import { toRegionId } from "../../naming.ts";
import { FileBytes } from "../file-bytes.ts";
import type { HostLanes } from "../lane.ts";
import { MemfdFiles } from "../memfd/memfd-files.ts";
import { MemfdMemory } from "../memfd/memfd-memory.ts";
import { MemfdNames } from "../memfd/memfd-names.ts";
import type { Memfds } from "../memfd/memfds.ts";
import type { OnAllocationStep, Storage } from "../storage.ts";

export class HeapStorage implements Storage {
  readonly kind = "heap";
  readonly form = "heap";
  readonly device = null;
  readonly hasHeader = true;
  readonly isMappable = false;
  readonly isPrivate = true;
  readonly hugePage = null;
  readonly endsWith: StorageEnd;
  readonly memory: HeapMemory;
  readonly names: MemfdNames;
  readonly bytes: FileBytes;

  /** @throws SystemError if this host gives no such memory. */
  constructor(memfds: Memfds, lanes: HostLanes, onStep?: OnAllocationStep) {
    this.endsWith = memfds.holder === undefined ? "server" : "container";
    const files = new MemfdFiles(memfds, this.form);
    this.memory = new HeapMemory(files, lanes, onStep);
    this.names = new MemfdNames(files);
    this.bytes = new FileBytes(files, lanes.filling);
  }
}

class HeapMemory extends MemfdMemory {
  override openDescription(token: string): never {
    throw toRefusal(token);
  }

  override descriptionPath(token: string): never {
    throw toRefusal(token);
  }
}

function toRefusal(token: string): TensordError {
  return new TensordError(
    "storage-unavailable",
    `Cannot hand out the memory of ${toRegionId(token)}: it is in heap storage, which no process maps`,
    { hint: 'Download its bytes, or create the region in "shm" or "memfd" storage.' },
  );
}
