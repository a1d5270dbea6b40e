/** Bytes in a file without a name that nobody can ever change: for handing them to another process by a descriptor. */

import { closeSync, writeSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { withSpare } from "./descriptors.ts";
import { addressOf, loadLibrary, readInt } from "./ffi.ts";
import { failureOf, library } from "./libc.ts";

// memfd_create(2), <linux/memfd.h>.
const MFD_CLOEXEC = 0x1;
const MFD_ALLOW_SEALING = 0x2;
const MFD_NOEXEC_SEAL = 0x8;
// fcntl(2), <linux/fcntl.h>.
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;
const F_SEAL_GROW = 0x4;
const F_SEAL_WRITE = 0x8;

let bound: ReturnType<typeof bindMemfd> | undefined;

function bindMemfd() {
  return loadLibrary("libc.so.6", {
    // int memfd_create(const char *name, unsigned int flags);
    memfd_create: { args: ["u64", "u32"], returns: "i32" },
  });
}

/** @returns its descriptor, the caller's to close. Its position says nothing: read it with pread(2). */
export function createSealedFile(name: string, bytes: Uint8Array): number {
  const fd = withSpare(() => createMemfd(name));
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    const seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    const c = library();
    if (c.symbols.fcntl(fd, F_ADD_SEALS, BigInt(seals)) !== 0) throw failureOf("fcntl(F_ADD_SEALS)", readInt(c.errno));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function createMemfd(name: string): number {
  bound ??= bindMemfd();
  const text = Buffer.alloc(Buffer.byteLength(name) + 1);
  text.write(name);
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  let fd = bound.memfd_create(addressOf(text), flags | MFD_NOEXEC_SEAL);
  let errno = readInt(library().errno);
  // A kernel before 6.3 knows no memory that can never be run.
  if (fd === -1 && errno === osConstants.errno.EINVAL) {
    fd = bound.memfd_create(addressOf(text), flags);
    errno = readInt(library().errno);
  }
  if (fd === -1) throw failureOf("memfd_create", errno);
  return fd;
}
