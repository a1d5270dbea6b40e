/** The `memfd` storage has no names: a region is there as long as its descriptor is, and is reached by whoever is given one. */

import { fstatSync } from "node:fs";
import { privateModes, toAccess } from "../access-modes.ts";
import type { Address, KeptFile, NameState, Names } from "../storage.ts";
import { type MemfdFiles, toIdentity } from "./memfd-files.ts";

export class MemfdNames implements Names {
  readonly lossCause = "not-kept";
  readonly #files: MemfdFiles;

  constructor(files: MemfdFiles) {
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
