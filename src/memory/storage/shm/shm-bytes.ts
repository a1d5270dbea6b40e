/** Bytes of the `shm` storage, by descriptor only: nothing is mapped, so no worker kills us by truncating a file. */

import { closeSync, constants, fstatSync, readSync } from "node:fs";
import { toChunks } from "../../layout/checksum.ts";
import { openFile } from "../../os/files.ts";
import { type DataAccess, DataFile } from "../data-file.ts";
import type { Lane } from "../lane.ts";
import { resized } from "../resized.ts";
import type { Bytes } from "../storage.ts";
import type { ShmFiles } from "./shm-files.ts";

const { O_NOFOLLOW, O_RDONLY } = constants;

export class ShmBytes implements Bytes {
  readonly #files: ShmFiles;
  readonly #lane: Lane;

  constructor(files: ShmFiles, lane: Lane) {
    this.#files = files;
    this.#lane = lane;
  }

  open(token: string, access: DataAccess): DataFile {
    const path = this.#files.keptPath(token);
    return this.#files.translated(() => DataFile.open(path, access, (error) => this.#files.translate(error, 0)));
  }

  readPrefix(token: string, byteSize: number): Uint8Array {
    return this.#files.withKept(token, (fd) => {
      const prefix = new Uint8Array(byteSize);
      return prefix.subarray(0, readSync(fd, prefix, 0, byteSize, 0));
    });
  }

  async hash(token: string, dataOffset: number, byteSize: number, check: () => void): Promise<readonly bigint[]> {
    const flags = O_RDONLY | O_NOFOLLOW;
    const fd = this.#files.translated(() => openFile(this.#files.keptPath(token), flags, undefined, "long"));
    try {
      const hashes: bigint[] = [];
      checkSize(fd, byteSize);
      for (const chunk of toChunks(dataOffset, byteSize - dataOffset)) {
        hashes.push(await this.#lane.run({ kind: "hash", fd, ...chunk }));
        check();
      }
      checkSize(fd, byteSize);
      return hashes;
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    } finally {
      closeSync(fd);
    }
  }
}

function checkSize(fd: number, byteSize: number): void {
  const { size } = fstatSync(fd);
  if (size !== byteSize) throw resized("Cannot read the region to its end", size, byteSize);
}
