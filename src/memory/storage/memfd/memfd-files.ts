/**
 * What all parts of one form of the `memfd` storage share: its pages, how a region's file is opened, and what a refusal of the
 * system means. The translation to failures of the table is here, once.
 */

import { closeSync, fstatSync } from "node:fs";
import { SystemError, TensordError } from "../../error.ts";
import { readHugeSpace, readMainSpace } from "../../host/memory-space.ts";
import { type Stay, toOutOfDescriptors } from "../../os/descriptors.ts";
import { createMemfd } from "../../os/libc-memory.ts";
import type { DataAccess } from "../data-file.ts";
import type { Files } from "../file-bytes.ts";
import { resized } from "../resized.ts";
import { type HugePage, hugePageBytes, type Identity, type Space, type StorageForm, toHugePage } from "../storage.ts";
import { type Memfd, type Memfds, pageSizeOf } from "./memfds.ts";

export class MemfdFiles implements Files {
  readonly memfds: Memfds;
  readonly form: StorageForm;
  readonly hugePage: HugePage | null;
  readonly pageSize: number;
  readonly keptDescriptors = 1;

  /** @throws SystemError if this host gives no such memory. */
  constructor(memfds: Memfds, form: StorageForm) {
    this.memfds = memfds;
    this.form = form;
    const hugePage = toHugePage(form);
    this.hugePage = hugePage;
    const fd = createMemfd("tensord", hugePage === null ? undefined : hugePageBytes[hugePage]);
    this.pageSize = pageSizeOf(fd);
    closeSync(fd);
  }

  /** @throws TensordError `io-error` if the region has no memory. */
  get(token: string): Memfd {
    const memfd = this.memfds.find(token);
    if (memfd !== undefined) return memfd;
    throw new TensordError("io-error", `Cannot work on the region of ${token}: nobody has its memory`, {
      hint: "Delete the region and create it again.",
    });
  }

  open(token: string, access: DataAccess, stay: Stay = "short"): number {
    return this.memfds.open(this.get(token), access, stay);
  }

  /** Nobody can change it. */
  sizeOf(token: string): number {
    return this.get(token).byteSize;
  }

  space(): Space {
    const { totalBytes, freeBytes } = this.hugePage === null ? readMainSpace() : readHugeSpace(this.pageSize);
    // Neither names nor inodes of a file system are taken.
    return { totalBytes, freeBytes, usedBytes: totalBytes - freeBytes, usedInodes: 0, freeInodes: 0 };
  }

  /** @throws TensordError `out-of-shared-memory` if `byteSize` bytes are more than there are. */
  checkSpace(byteSize: number): void {
    const { freeBytes } = this.space();
    if (byteSize > freeBytes) throw this.#full(byteSize, freeBytes);
  }

  /** Turns what the system said into a failure of the table; what is one already passes. */
  translate(error: unknown, requestedBytes: number): unknown {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof TensordError || typeof code !== "string") return error;
    const outOfDescriptors = toOutOfDescriptors(error);
    if (outOfDescriptors !== undefined) return outOfDescriptors;
    if (code === "ENOSPC" || code === "ENOMEM") return this.#full(requestedBytes, this.space().freeBytes, error);
    if (code === "EPERM") return final(error);
    if (error instanceof SystemError && code === "EOF") {
      return resized("Cannot read the region to its end", undefined, requestedBytes, {}, error);
    }
    return new TensordError(
      "io-error",
      `Cannot work on a region's memory: ${message}`,
      { errno: code, hint: "See the server's log." },
      { cause: error },
    );
  }

  #full(requestedBytes: number, freeBytes: number, cause?: unknown): TensordError {
    const { hugePage } = this;
    const pages = hugePage === null ? "of memory" : `in pages of ${hugePage}`;
    const reserve = `/sys/kernel/mm/hugepages/hugepages-${this.pageSize / 1024}kB/nr_hugepages`;
    return new TensordError(
      "out-of-shared-memory",
      `Cannot allocate ${requestedBytes} bytes ${pages}: ${freeBytes} bytes are free`,
      {
        requested_bytes: requestedBytes,
        available_bytes: freeBytes,
        errno: "ENOMEM",
        hint:
          hugePage === null
            ? "Delete regions, or end what takes the machine's memory."
            : `Reserve more of them (a number of pages into ${reserve}), or leave "huge_pages" out.`,
      },
      { cause },
    );
  }
}

/** F_SEAL_WRITE stands for ever, whatever became of the seal that asked for it. */
function final(cause: unknown): TensordError {
  return new TensordError(
    "region-sealed",
    "Cannot write the region: the kernel has made its bytes final",
    {
      errno: "EPERM",
      hint: "A seal was refused after that, or a worker did it by itself: seal the region again, or delete it.",
    },
    { cause },
  );
}

export function toIdentity(fd: number): Identity {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return { dev: dev.toString(), ino: ino.toString() };
}
