/** The `memfd` storage has no names: a region is there as long as its descriptor is, and is reached by whoever is given one. */

import { fstatSync } from "node:fs";
import { privateModes, toAccess } from "../access-modes.ts";
import type { Address, KeptFile, NameState, Names, StorageForm } from "../storage.ts";
import { toIdentity } from "./memfd-files.ts";
import type { Memfd, Memfds } from "./memfds.ts";

/** Where the regions of a form have their descriptors. */
export interface NamelessFiles {
  readonly memfds: Memfds;
  readonly form: StorageForm;
  get(token: string): Memfd;
}

export class MemfdNames implements Names {
  readonly lossCause = "not-kept";
  readonly #files: NamelessFiles;

  constructor(files: NamelessFiles) {
    this.#files = files;
  }

  keep(token: string): void {
    this.#files.get(token).isKept = true;
  }

  kept(): readonly KeptFile[] {
    return [...this.#files.memfds.of(this.#files.form)]
      .filter(([, { isKept }]) => isKept)
      .map(([token, { fd, byteSize }]) => {
        const access = toAccess(privateModes, fstatSync(fd).mode);
        return { token, identity: toIdentity(fd), byteSize, access };
      });
  }

  address(): Address {
    return { path: null, shmName: null };
  }

  publish(): void {}

  isPublished(): undefined {}

  withdraw(): void {}

  inspect(token: string): NameState {
    return this.#files.memfds.find(token)?.isKept === true ? "intact" : "lost";
  }
}
