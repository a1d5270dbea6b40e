/** Names of the `shm` storage: a hard link in the keeper that proves a file ours, and another one that clients open. */

import { linkSync, lstatSync, renameSync } from "node:fs";
import { linkAt, renameAt } from "../../os/libc-names.ts";
import { toAccess } from "../access-modes.ts";
import type { InstanceDirectory } from "../instance-directory.ts";
import type { Address, Identity, KeptFile, NameState, Names } from "../storage.ts";
import { isSame, type ShmFiles, toIdentity, unlinkIfThere } from "./shm-files.ts";

export class ShmNames implements Names {
  readonly lossCause = "removed";
  readonly #files: ShmFiles;
  readonly #directory: InstanceDirectory;

  constructor(files: ShmFiles, directory: InstanceDirectory) {
    this.#files = files;
    this.#directory = directory;
  }

  keep(token: string): void {
    // Without a function of its own, here and in `publish`: every creation would make one.
    try {
      renameAt(this.#files.newPlace(token), this.#files.keptPlace(token));
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
    this.#files.forgetTaken(token);
  }

  kept(): readonly KeptFile[] {
    return this.#files.translated(() =>
      this.#files.keptTokens().flatMap((token) => {
        const stat = lstatSync(this.#files.keptPath(token), { bigint: true });
        if (!stat.isFile()) return [];
        const access = toAccess(this.#files.modes, Number(stat.mode));
        return [{ token, identity: toIdentity(stat), byteSize: Number(stat.size), access }];
      }),
    );
  }

  address(token: string): Address {
    return { path: this.#directory.advertisedPath(token), shmName: this.#directory.shmName(token) };
  }

  publish(token: string): void {
    try {
      linkAt(this.#files.keptPlace(token), this.#files.publicPlace(token));
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
  }

  isPublished(token: string, identity: Identity): boolean {
    const path = this.#files.publicPath(token);
    const named = this.#files.translated(() => lstatSync(path, { bigint: true, throwIfNoEntry: false }));
    return named !== undefined && isSame(toIdentity(named), identity);
  }

  withdraw(token: string, identity: Identity): void {
    // Between the two a stranger may take the name away, which is as well.
    if (!this.isPublished(token, identity)) return;
    this.#files.translated(() => unlinkIfThere(this.#files.publicPath(token)));
  }

  inspect(token: string, identity: Identity): NameState {
    const name = this.#files.publicPath(token);
    const kept = this.#files.keptPath(token);
    const look = (path: string) =>
      this.#files.translated(() => lstatSync(path, { bigint: true, throwIfNoEntry: false }));
    const named = look(name);
    if (named !== undefined && isSame(toIdentity(named), identity)) return "intact";
    if (look(kept) === undefined) return "lost";
    try {
      if (named === undefined) {
        linkSync(kept, name);
        return "relinked";
      }
      this.#replaceForeign(token, name);
      return "replaced";
    } catch {
      return "blocked";
    }
  }

  /** link(2) cannot clobber and rename(2) can: a second link of ours is renamed over what stands in the name's place. */
  #replaceForeign(token: string, name: string): void {
    const spare = this.#files.newPath(`${token}.name`);
    linkSync(this.#files.keptPath(token), spare);
    try {
      renameSync(spare, name);
    } finally {
      // rename(2) onto another link of the same file does nothing and leaves the old name.
      unlinkIfThere(spare);
    }
  }
}
