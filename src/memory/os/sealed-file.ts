/** Bytes in a file without a name that nobody can ever change: for handing them to another process by a descriptor. */

import { closeSync, writeSync } from "node:fs";
import { withSpare } from "./descriptors.ts";
import { addSeals, createMemfd } from "./libc-memory.ts";

/** @returns its descriptor, the caller's to close. Its position says nothing: read it with pread(2). */
export function createSealedFile(name: string, bytes: Uint8Array): number {
  const fd = withSpare(() => createMemfd(name));
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    addSeals(fd, "shrink", "grow", "write");
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
