/**
 * Bytes of regions in huge pages, whose files take neither pwrite(2) nor sendfile(2): they are written through a mapping that is
 * there for as long as each write takes. Such a file cannot shrink, so nobody is killed by that.
 */

import { writeMapped } from "../../os/libc-memory.ts";
import { DataFile, type Receipt } from "../data-file.ts";
import { FileBytes } from "../file-bytes.ts";
import type { Lane } from "../lane.ts";
import type { MemfdFiles } from "./memfd-files.ts";
import type { Memfd } from "./memfds.ts";

export class HugeBytes extends FileBytes {
  readonly #memfds: MemfdFiles;

  constructor(files: MemfdFiles, lane: Lane) {
    super(files, lane);
    this.#memfds = files;
  }

  protected override toDataFile(token: string, ...file: ConstructorParameters<typeof DataFile>): DataFile {
    return new HugeDataFile(this.#memfds.get(token), this.#memfds.pageSize, ...file);
  }

  protected override get mappedPageBytes(): number {
    return this.#memfds.pageSize;
  }

  /** Such pages are not there to be taken away. */
  override async resident(_token: string, byteSize: number): Promise<number> {
    return byteSize;
  }

  /** The file goes on to the end of its last page. */
  override readPrefix(token: string, byteSize: number): Uint8Array {
    return super.readPrefix(token, Math.min(byteSize, this.#memfds.get(token).byteSize));
  }
}

class HugeDataFile extends DataFile {
  readonly #memfd: Memfd;
  readonly #pageSize: number;

  constructor(memfd: Memfd, pageSize: number, ...file: ConstructorParameters<typeof DataFile>) {
    super(...file);
    this.#memfd = memfd;
    this.#pageSize = pageSize;
  }

  override get byteSize(): number {
    return this.#memfd.byteSize;
  }

  override get isSendable(): boolean {
    return false;
  }

  override write(bytes: Uint8Array, byteOffset: number): void {
    if (bytes.length === 0) return;
    this.translated(() => writeMapped(this.fd, byteOffset, bytes, this.#pageSize));
  }

  override receive(body: ReadableStream<Uint8Array>, byteOffset: number): Receipt {
    return new MappedInflow(this, body, byteOffset);
  }
}

/** The runtime cannot write such a file, so the body comes by. */
class MappedInflow implements Receipt {
  readonly #file: DataFile;
  readonly ended: Promise<void>;
  byteSize = 0;
  #isOver = false;

  constructor(file: DataFile, body: ReadableStream<Uint8Array>, byteOffset: number) {
    this.#file = file;
    this.ended = this.#take(body, byteOffset);
  }

  async #take(body: ReadableStream<Uint8Array>, byteOffset: number): Promise<void> {
    for await (const chunk of body) {
      // Whoever sends it goes on to the end, and is told then.
      if (this.#isOver) continue;
      this.#file.write(chunk, byteOffset + this.byteSize);
      this.byteSize += chunk.length;
    }
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
  }
}
