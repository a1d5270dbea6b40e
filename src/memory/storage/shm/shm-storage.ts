/**
 * Regions as files of a tmpfs: made in `new/`, kept by a hard link in `keep/`, and, unless they are private, published by
 * another one in the shared directory.
 */

import { FileBytes } from "../file-bytes.ts";
import type { InstanceDirectory } from "../instance-directory.ts";
import type { HostLanes } from "../lane.ts";
import type { Names, Storage } from "../storage.ts";
import { PrivateNames } from "./private-names.ts";
import { ShmFiles } from "./shm-files.ts";
import { ShmMemory, type ShmMemoryOptions } from "./shm-memory.ts";
import { ShmNames } from "./shm-names.ts";

export interface ShmOptions extends ShmMemoryOptions {
  readonly isPrivate?: boolean;
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

  constructor(directory: InstanceDirectory, lanes: HostLanes, { isPrivate = false, ...options }: ShmOptions = {}) {
    this.isPrivate = isPrivate;
    this.form = isPrivate ? "shm-private" : "shm";
    const files = new ShmFiles(directory, isPrivate, options.promised);
    this.memory = new ShmMemory(files, lanes, options);
    this.names = new (isPrivate ? PrivateNames : ShmNames)(files, directory);
    this.bytes = new FileBytes(files, lanes.filling);
  }
}
