/** Every storage that there is, opened in a place of its own, as the conformance suite takes it. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InstanceDirectory } from "../../../src/memory/storage/instance-directory.ts";
import { ShmStorage } from "../../../src/memory/storage/shm/shm-storage.ts";
import type { Storage, StorageKind } from "../../../src/memory/storage/storage.ts";
import { defaultShmDirectory, testToken } from "../../harness/instance.ts";
import { StandInStorage } from "./stand-in-storage.ts";

export interface OpenStorage extends Disposable {
  readonly storage: Storage;
  /** Any path by which a worker reaches the memory of a kept region. */
  pathOf(token: string): string;
}

/** A storage, on a kind of file system. */
export interface StorageCase {
  readonly name: string;
  readonly kind: StorageKind;
  open(): OpenStorage;
}

export const storageCases: readonly StorageCase[] = [
  { name: "shm on a tmpfs", kind: "shm", open: () => openShm(defaultShmDirectory) },
  { name: "shm on a disk", kind: "shm", open: () => openShm(tmpdir()) },
  { name: "a stand-in without public names", kind: "file", open: openStandIn },
];

function openShm(parent: string): OpenStorage {
  using opened = new DisposableStack();
  const folder = opened.adopt(mkdtempSync(join(parent, `conformance-${testToken}-`)), removeFolder);
  const directory = opened.use(InstanceDirectory.open({ shmDirectory: folder, instance: "test" }));
  const storage = opened.use(new ShmStorage(directory));
  const all = opened.move();
  return { storage, pathOf: (token) => directory.path("keep", token), [Symbol.dispose]: () => all.dispose() };
}

function openStandIn(): OpenStorage {
  using opened = new DisposableStack();
  const folder = opened.adopt(mkdtempSync(join(tmpdir(), "conformance-")), removeFolder);
  const storage = opened.use(new StandInStorage(folder));
  const all = opened.move();
  return { storage, pathOf: (token) => storage.pathOf(token), [Symbol.dispose]: () => all.dispose() };
}

function removeFolder(path: string): void {
  rmSync(path, { recursive: true });
}
