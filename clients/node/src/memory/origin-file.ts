/**
 * Files of somebody else's that regions are (`file` storage): opened where they lie, and looked at after that. Nobody locks them, since
 * on such a file a lock proves nothing: who maps one leases the region by request. Who writes to the file changes what is mapped, and
 * who cuts it takes pages away: a touch of one that is gone ends the process by SIGBUS, as with any mapped file.
 */

import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { isOutOfDescriptors, outOfDescriptors } from "../descriptors.ts";
import { TensordError } from "../errors.ts";
import { codeOf, Mismatch, mappingFailed, type NamedPlace, type Place } from "./attach.ts";

// <fcntl.h>, the same on x86-64 and arm64; node:fs has no name for it.
const O_CLOEXEC = 0o2000000;
// Links on the way are its owner's to make. A FIFO or a terminal in its place must not be waited for.
const openFlags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY | O_CLOEXEC;

const copyHint = 'load it with mode: "copy", which the server reads for all';

/** Whether the region is such a file. */
export function isOrigin({ storage }: Pick<Place, "storage">): boolean {
  return storage === "file";
}

/**
 * A descriptor of the file, for reading and without locks; the caller closes it.
 * @throws Mismatch, TensordError `access-denied`, `mapping-failed`, `out-of-descriptors`
 */
export function openOrigin(place: NamedPlace, isWriter: boolean): number {
  if (isWriter) throw new Mismatch(place, "is a file of somebody else's", "sealed");
  let fd: number;
  try {
    fd = openSync(place.path, openFlags);
  } catch (cause) {
    throw toRefusal(place, cause);
  }
  try {
    check(fd, place);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function toRefusal(place: NamedPlace, cause: unknown): Error {
  const code = codeOf(cause);
  const { region, path } = place;
  if (code === "ENOENT" || code === "ENOTDIR") return new Mismatch(place, `is not here (${code})`, "elsewhere");
  if (isOutOfDescriptors(cause)) return outOfDescriptors(`open region ${region}`, cause);
  if (code !== "EACCES" && code !== "EPERM") return mappingFailed(cause, `open region ${region}: ${code} for ${path}`);
  const who = `this process is uid ${process.geteuid?.()}`;
  return new TensordError("access-denied", `Cannot open ${path}, which is region ${region}: ${code}, and ${who}`, {
    hint: `let this process read the file, or ${copyHint}`,
    cause,
  });
}

function check(fd: number, place: NamedPlace): void {
  const status = fstatSync(fd, { bigint: true });
  const { dev, ino, byteSize, mtimeNs } = place;
  const refuse = (seen: string) => new Mismatch(place, seen, "elsewhere");
  if (!status.isFile()) throw refuse("is no regular file");
  if (String(status.dev) !== dev || String(status.ino) !== ino) {
    throw refuse(`is inode ${status.ino} of device ${status.dev}, want ${ino} of ${dev}`);
  }
  if (Number(status.size) !== byteSize) throw refuse(`has ${status.size} bytes, want ${byteSize}`);
  if (mtimeNs != null && String(status.mtimeNs) !== mtimeNs) throw refuse("was written to since it was loaded");
}
