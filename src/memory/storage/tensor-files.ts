/**
 * Long lists of tensors in files of their own, beside the journal: the list as it is answered, and behind it its index.
 * Such a file is written before the region's row and removed after it, so that a row means that the list is there. What a
 * region's tensors are nobody decides here.
 */

import { closeSync, constants, fstatSync, mkdirSync, readSync, statSync } from "node:fs";
import { unlink } from "node:fs/promises";
import { TensordError } from "../error.ts";
import { roundUpToPage } from "../host/capacity.ts";
import type { Tensor } from "../layout/layout.ts";
import { findPlaces, indexEntryBytes } from "../layout/tensor-index.ts";
import { readTensor, type TensorList, type Tensors, toBeginning } from "../layout/tensors.ts";
import { limits } from "../limits.ts";
import { tokenPattern } from "../naming.ts";
import { listDirectory, openFile } from "../os/files.ts";
import type { InstanceDirectory } from "./instance-directory.ts";
import { writeInSlices } from "./write-in-slices.ts";

const { O_CREAT, O_NOFOLLOW, O_RDONLY, O_TRUNC, O_WRONLY } = constants;
const folderName = "tensors";
const pageBytes = 4096;

/** Whether a list is too long to be held in memory and in the journal's row. */
export function isLong(list: TensorList): boolean {
  return list.byteSize > limits.heldListBytes;
}

/** What the file of a list takes. */
export function toFileBytes({ byteSize, count }: TensorList): number {
  return roundUpToPage(byteSize + count * indexEntryBytes, pageBytes);
}

/** The list of one region, in its file. Nothing of it is held: a read opens the file. */
export class TensorFile implements TensorList {
  readonly count: number;
  readonly rowBytes = new Uint8Array(0);
  /** As this process reaches it. */
  readonly path: string;

  constructor(path: string, count: number) {
    this.path = path;
    this.count = count;
  }

  get byteSize(): number {
    return statSync(this.path).size - this.count * indexEntryBytes;
  }

  get fileBytes(): number {
    return roundUpToPage(statSync(this.path).size, pageBytes);
  }

  /** Whether the file is there, and looks like a list with its index. */
  isWhole(): boolean {
    const size = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    const byteSize = size - this.count * indexEntryBytes;
    if (byteSize < 2) return false;
    return this.#with((fd) => read(fd, 0, 1)[0] === 0x5b && read(fd, byteSize - 1, 1)[0] === 0x5d);
  }

  read(byteOffset: number, byteSize: number): Uint8Array {
    return this.#with((fd) => read(fd, byteOffset, byteSize));
  }

  find(name: string): Tensor | undefined {
    return this.#with((fd) => {
      const byteSize = fstatSync(fd).size - this.count * indexEntryBytes;
      const readEntry = (index: number) =>
        read(fd, byteSize + index * indexEntryBytes, indexEntryBytes).readBigUInt64LE();
      const beginning = Buffer.from(toBeginning(name));
      for (const place of findPlaces(name, this.count, readEntry)) {
        const text = read(fd, place, Math.min(limits.listedTensorBytes, byteSize - place));
        if (text.subarray(0, beginning.length).equals(beginning)) return readTensor(text);
      }
      return undefined;
    });
  }

  #with<Result>(use: (fd: number) => Result): Result {
    const fd = openFile(this.path, O_RDONLY | O_NOFOLLOW);
    try {
      return use(fd);
    } finally {
      closeSync(fd);
    }
  }
}

export class TensorFiles {
  /** Frees pages that are nobody's yet, for a write that finds the file system full; false if there are none. */
  makeRoom: () => Promise<boolean> = async () => false;
  readonly #directory: InstanceDirectory;

  constructor(directory: InstanceDirectory) {
    this.#directory = directory;
  }

  /** What a row that has no list of its own stands for. */
  of(token: string, count: number): TensorFile {
    return new TensorFile(this.#path(token), count);
  }

  /**
   * Writes a long list, in slices between which others have their turn.
   * @param index what `toTensorIndex` makes of it.
   * @throws TensordError `out-of-shared-memory`, `out-of-inodes`; nothing is left then.
   */
  async write(token: string, list: Tensors, index: Uint8Array): Promise<TensorFile> {
    for (;;) {
      try {
        await this.#write(this.#path(token), list, index);
        return this.of(token, list.count);
      } catch (error) {
        if (isWithoutPage(error) && (await this.makeRoom())) continue;
        await this.remove(token);
        throw translate(error);
      }
    }
  }

  async #write(path: string, list: Tensors, index: Uint8Array): Promise<void> {
    mkdirSync(this.#path(), { recursive: true, mode: 0o700 });
    const fd = openFile(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
    try {
      await writeInSlices(fd, list.bytes, 0);
      await writeInSlices(fd, index, list.byteSize);
    } finally {
      closeSync(fd);
    }
  }

  /** Removes the list of a region, if it has a file. Off the event loop: a large one takes a millisecond. */
  async remove(token: string): Promise<void> {
    try {
      await unlink(this.#path(token));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  /** The regions, by token, that a file was written for, however far its server came with them. */
  tokens(): string[] {
    try {
      return listDirectory(this.#path()).filter((name) => tokenPattern.test(name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
  }

  #path(token = ""): string {
    return this.#directory.path("store", `${folderName}/${token}`);
  }
}

function read(fd: number, byteOffset: number, byteSize: number): Buffer {
  const bytes = Buffer.allocUnsafe(byteSize);
  return bytes.subarray(0, readSync(fd, bytes, 0, byteSize, byteOffset));
}

/** Without a free inode not even an empty file can be made; this one could be. */
function isWithoutPage(error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" && syscall !== "open" && syscall !== "mkdir";
}

function translate(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== "ENOSPC") return error;
  const isInodes = !isWithoutPage(error);
  return new TensordError(
    isInodes ? "out-of-inodes" : "out-of-shared-memory",
    "Cannot keep the list of the region's tensors: the shared memory file system is full",
    { errno: code, hint: "Remove foreign files from it, delete regions, or mount it larger." },
    { cause: error },
  );
}
