/**
 * Regions as files of a tmpfs: made in `new/`, kept by a hard link in `keep/`, and, unless they are private, published by
 * another one in the shared directory.
 */

import { FileBytes } from "../file-bytes.ts";
import type { InstanceDirectory } from "../instance-directory.ts";
import type { HostLanes } from "../lane.ts";
import type { Names, OnAllocationStep, Storage } from "../storage.ts";
import { PrivateNames } from "./private-names.ts";
import type { Reserve } from "./reserve/reserve.ts";
import { ShmFiles } from "./shm-files.ts";
import { ShmMemory } from "./shm-memory.ts";
import { ShmNames } from "./shm-names.ts";

export interface ShmOptions {
  readonly isPrivate?: boolean;
  readonly onStep?: OnAllocationStep | undefined;
  /** Of files that lie ready, shared by all storages of the directory; undefined: each is made when it is asked for. */
  readonly reserve?: Reserve | undefined;
}

export class ShmStorage implements Storage {
  readonly kind = "shm";
  readonly form: "shm" | "shm-private";
  readonly isPrivate: boolean;
  readonly hugePage = null;
  readonly device = null;
  readonly hasHeader = true;
  readonly isMappable = true;
  readonly endsWith = "file_system";
  readonly memory: ShmMemory;
  readonly names: Names;
  readonly bytes: FileBytes;

  constructor(directory: InstanceDirectory, lanes: HostLanes, { isPrivate = false, onStep, reserve }: ShmOptions = {}) {
    this.isPrivate = isPrivate;
    this.form = isPrivate ? "shm-private" : "shm";
    const files = new ShmFiles(directory, isPrivate);
    this.memory = new ShmMemory(files, lanes, onStep, reserve);
    this.names = new (isPrivate ? PrivateNames : ShmNames)(files, directory);
    this.bytes = new FileBytes(files, lanes.filling);
  }
}
