/**
 * Lease files: beside the driver's memory each region on a device has a memfd without a byte. It carries every lock that a mapping of
 * host memory would, so that a worker's death ends its leases by the kernel's word, whether a server runs or not; its mode says whether
 * the region is sealed, and its inode which region it is.
 */

import { closeSync, fchmodSync } from "node:fs";
import { TensordError } from "../memory/error.ts";
import { toRegionId } from "../memory/naming.ts";
import { toOutOfDescriptors } from "../memory/os/descriptors.ts";
import { askLocks } from "../memory/os/kernel-lease.ts";
import { privateModes, toMode } from "../memory/storage/access-modes.ts";
import type { DataAccess } from "../memory/storage/data-file.ts";
import { toIdentity } from "../memory/storage/memfd/memfd-files.ts";
import type { Memfd, Memfds } from "../memory/storage/memfd/memfds.ts";
import type { Access, DeviceForm, Identity, Usage } from "../memory/storage/storage.ts";

export class DeviceFiles {
  readonly form: DeviceForm;
  readonly memfds: Memfds;

  constructor(form: DeviceForm, memfds: Memfds) {
    this.form = form;
    this.memfds = memfds;
  }

  /** @throws TensordError `io-error` if the region has none. */
  get(token: string): Memfd {
    const memfd = this.memfds.find(token);
    if (memfd !== undefined) return memfd;
    throw new TensordError("io-error", `Cannot work on ${toRegionId(token)}: nobody has its memory`, {
      hint: "Delete the region and create it again.",
    });
  }

  get all(): Iterable<readonly [string, Memfd]> {
    return this.memfds.of(this.form);
  }

  /** @throws TensordError `out-of-descriptors`, `io-error`. */
  create(token: string, byteSize: number): Identity {
    return translated(() => toIdentity(this.memfds.createLeaseFile(token, byteSize, this.form).fd));
  }

  usage(token: string): Usage | undefined {
    const memfd = this.memfds.find(token);
    if (memfd === undefined || !memfd.isKept) return undefined;
    // Our own descriptor holds no lock, so that it may ask.
    return { ...askLocks(memfd.fd), byteSize: memfd.byteSize };
  }

  open(token: string, access: DataAccess): number {
    return translated(() => this.memfds.open(this.get(token), access, "short"));
  }

  setAccess(token: string, access: Access): void {
    const mode = toMode(privateModes, access);
    translated(() => fchmodSync(this.get(token).fd, mode));
  }

  /** Resolves once nobody keeps it. */
  async remove(token: string): Promise<void> {
    if (this.memfds.find(token) === undefined) return;
    await this.memfds.holder?.drop(token);
    // Another call may have come this far meanwhile.
    const memfd = this.memfds.take(token);
    if (memfd !== undefined) closeSync(memfd.fd);
  }
}

function translated<Result>(call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    if (error instanceof TensordError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (typeof code !== "string") throw error;
    throw (
      toOutOfDescriptors(error) ??
      new TensordError(
        "io-error",
        `Cannot work on a region's lease file: ${message}`,
        { errno: code, hint: "See the server's log." },
        { cause: error },
      )
    );
  }
}
