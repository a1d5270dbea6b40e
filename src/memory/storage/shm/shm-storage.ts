/**
 * Regions as named files of a tmpfs: made in `new/`, kept by a hard link in `keep/`, published by another one in the
 * shared directory. Allocating and hashing share a lane of Workers.
 */

import type { InstanceDirectory } from "../instance-directory.ts";
import { Lane } from "../lane.ts";
import type { OnAllocationStep, Storage } from "../storage.ts";
import { ShmBytes } from "./shm-bytes.ts";
import { ShmFiles } from "./shm-files.ts";
import { ShmMemory } from "./shm-memory.ts";
import { ShmNames } from "./shm-names.ts";

export class ShmStorage implements Storage, Disposable {
  readonly kind = "shm";
  readonly memory: ShmMemory;
  readonly names: ShmNames;
  readonly bytes: ShmBytes;
  readonly #filling = new Lane();

  constructor(directory: InstanceDirectory, onStep?: OnAllocationStep) {
    const files = new ShmFiles(directory);
    this.memory = new ShmMemory(files, this.#filling, onStep);
    this.names = new ShmNames(files, directory);
    this.bytes = new ShmBytes(files, this.#filling);
  }

  async start(): Promise<void> {
    await Promise.all([this.#filling.start(), this.memory.start()]);
  }

  [Symbol.dispose](): void {
    this.#filling[Symbol.dispose]();
    this.memory[Symbol.dispose]();
  }
}
