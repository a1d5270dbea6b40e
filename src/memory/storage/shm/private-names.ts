/** Names of private regions in `shm` storage: the keeper's link, which no other uid reaches, and no public one. */

import { lstatSync } from "node:fs";
import type { InstanceDirectory } from "../instance-directory.ts";
import type { Address, KeptFile, NameState, Names } from "../storage.ts";
import type { ShmFiles } from "./shm-files.ts";
import { ShmNames } from "./shm-names.ts";

export class PrivateNames implements Names {
  readonly lossCause = "removed";
  readonly #files: ShmFiles;
  readonly #keeper: ShmNames;

  constructor(files: ShmFiles, directory: InstanceDirectory) {
    this.#files = files;
    this.#keeper = new ShmNames(files, directory);
  }

  keep(token: string): void {
    this.#keeper.keep(token);
  }

  kept(): readonly KeptFile[] {
    return this.#keeper.kept();
  }

  address(): Address {
    return { path: null, shmName: null };
  }

  publish(): void {}

  isPublished(): undefined {}

  withdraw(): void {}

  inspect(token: string): NameState {
    const path = this.#files.keptPath(token);
    const stat = this.#files.translated(() => lstatSync(path, { throwIfNoEntry: false }));
    return stat === undefined ? "lost" : "intact";
  }
}
