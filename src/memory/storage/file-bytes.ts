/** Bytes of regions that are files, by descriptor only: nothing is mapped, so no worker kills us by truncating one. */

import { closeSync, readSync } from "node:fs";
import { type Chunk, toChunks } from "../layout/checksum.ts";
import type { Stay } from "../os/descriptors.ts";
import type { PageAdvice } from "../os/libc-files.ts";
import { type DataAccess, DataFile } from "./data-file.ts";
import { advisePages, countResidentBytes, flushFile } from "./file-pages.ts";
import { inTurn } from "./in-turn.ts";
import type { Lane } from "./lane.ts";
import { resized } from "./resized.ts";
import type { Bytes, FillSource, Writing } from "./storage.ts";

/** Where a storage has its files. */
export interface Files {
  /** How many descriptors of each region's file it keeps open itself. */
  readonly keptDescriptors: number;
  /** Opens the file of a kept region. @throws what the system says. */
  open(token: string, access: DataAccess, stay?: Stay): number;
  /** How large the region is whose file is open at `fd`, as far as anybody can change that. */
  sizeOf(token: string, fd: number): number;
  /** The failure of the table for what the system said. */
  translate(error: unknown, requestedBytes: number): unknown;
}

const asItIs: Writing = (write) => write();

export class FileBytes implements Bytes {
  readonly #files: Files;
  readonly #lane: Lane;

  constructor(files: Files, lane: Lane) {
    this.#files = files;
    this.#lane = lane;
  }

  open(token: string, access: DataAccess): DataFile {
    const files = this.#files;
    const translate = (error: unknown) => files.translate(error, 0);
    return this.#translated(() =>
      this.toDataFile(token, files.open(token, access, "long"), access, translate, files.keptDescriptors + 1),
    );
  }

  /** Takes the open file over. */
  protected toDataFile(_token: string, ...file: ConstructorParameters<typeof DataFile>): DataFile {
    return new DataFile(...file);
  }

  readPrefix(token: string, byteSize: number): Uint8Array {
    return this.#translated(() => {
      const fd = this.#files.open(token, "read");
      try {
        const prefix = new Uint8Array(byteSize);
        return prefix.subarray(0, readSync(fd, prefix, 0, byteSize, 0));
      } finally {
        closeSync(fd);
      }
    });
  }

  async hash(
    token: string,
    dataOffset: number,
    byteSize: number,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]> {
    const fd = this.#translated(() => this.#files.open(token, "read", "long"));
    try {
      const hashes: bigint[] = [];
      this.#checkSize(token, fd, byteSize);
      for (const chunk of toChunks(dataOffset, byteSize - dataOffset)) {
        hashes.push(await this.#lane.run({ kind: "hash", fd, ...chunk }));
        onChunk(chunk.byteSize);
      }
      this.#checkSize(token, fd, byteSize);
      return hashes;
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    } finally {
      closeSync(fd);
    }
  }

  async fill(
    token: string,
    dataOffset: number,
    byteSize: number,
    source: FillSource,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]> {
    using file = this.open(token, "write");
    const { lanes = [this.#lane], writing = asItIs } = source;
    const chunks = [...toChunks(dataOffset, byteSize - dataOffset)];
    const hashes: bigint[] = [];
    const copy = async (lane: Lane, index: number, { byteOffset: toOffset, ...chunk }: Chunk) => {
      const from = { fd: source.fd, byteOffset: source.byteOffset + toOffset - dataOffset };
      const to = { toFd: file.fd, toOffset, mappedPageBytes: this.mappedPageBytes, dropsRead: source.isForeign };
      hashes[index] = await writing(() => lane.run({ kind: "copy", ...from, ...chunk, ...to }));
      onChunk(chunk.byteSize);
    };
    try {
      await inTurn(lanes, chunks, copy);
      return hashes;
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    }
  }

  resident(token: string, byteSize: number): Promise<number | null> {
    return this.#withFile(token, byteSize, (fd) => countResidentBytes(fd, byteSize, this.#lane));
  }

  advise(token: string, byteSize: number, advice: PageAdvice): Promise<void> {
    return this.#withFile(token, byteSize, (fd) => advisePages(fd, byteSize, advice, this.#lane));
  }

  flush(token: string): Promise<boolean> {
    return this.#withFile(token, 0, flushFile);
  }

  /** Opens the file, without locks, for as long as `use` takes. */
  async #withFile<Result>(token: string, byteSize: number, use: (fd: number) => Promise<Result>): Promise<Result> {
    const fd = this.#translated(() => this.#files.open(token, "read", "long"));
    try {
      return await use(fd);
    } catch (error) {
      throw this.#files.translate(error, byteSize);
    } finally {
      closeSync(fd);
    }
  }

  /** Of files that are written through a mapping, the size of their pages. */
  protected get mappedPageBytes(): number | undefined {
    return undefined;
  }

  #checkSize(token: string, fd: number, byteSize: number): void {
    const size = this.#files.sizeOf(token, fd);
    if (size !== byteSize) throw resized("Cannot read the region to its end", size, byteSize);
  }

  #translated<Result>(call: () => Result): Result {
    try {
      return call();
    } catch (error) {
      throw this.#files.translate(error, 0);
    }
  }
}
