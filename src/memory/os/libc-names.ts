/**
 * The part of `libc.ts` that makes, moves and links files by a directory that is held open. By a path through `/proc/self/fd` the kernel
 * walks five directories for each name, which is the half of what such a call costs.
 */

import assert from "node:assert/strict";
import { type Address, addressOf, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library } from "./libc.ts";

// open(2), <bits/fcntl-linux.h>: what node:fs sets by itself, and has no name for.
const O_CLOEXEC = 0o2000000;

/** A name in a directory that is held open. */
export interface Place {
  readonly directory: number;
  /** Of ASCII, without `/` and NUL. */
  readonly name: string;
}

/** NAME_MAX of <linux/limits.h>, and the NUL behind it. */
const nameBytes = 256;
/** A name that is passed, and a second one. Each thread has its own. */
const names = [Buffer.alloc(nameBytes), Buffer.alloc(nameBytes)] as const;
const addresses = names.map(addressOf) as [Address, Address];

/** Where `name` stands until the next call. */
function toText(name: string, index: 0 | 1): Address {
  const text = names[index];
  if (name.length === 0 || name.length >= nameBytes) assert.fail(`not a file's name: ${name.length} characters`);
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at);
    if (code === 0 || code === 0x2f || code > 0x7e) assert.fail(`not a file's name: ${JSON.stringify(name)}`);
    text[at] = code;
  }
  text[name.length] = 0;
  return addresses[index];
}

/**
 * Opens a file, or makes it with `mode` less the umask. The caller closes it. openat(2).
 * @param flags of node:fs' constants.
 */
export function openAt({ directory, name }: Place, flags: number, mode: number): number {
  checkDescriptor(directory);
  const c = library();
  const fd = c.symbols.openat(directory, toText(name, 0), flags | O_CLOEXEC, mode);
  if (fd === -1) throw failureOf("openat", readInt(c.errno));
  return fd;
}

/** Gives a file another place, from which what stood there goes. renameat(2). */
export function renameAt(from: Place, to: Place): void {
  checkDescriptor(from.directory);
  checkDescriptor(to.directory);
  const c = library();
  const result = c.symbols.renameat(from.directory, toText(from.name, 0), to.directory, toText(to.name, 1));
  if (result !== 0) throw failureOf("renameat", readInt(c.errno));
}

/** Gives a file a second name; EEXIST if something stands there. linkat(2). */
export function linkAt(from: Place, to: Place): void {
  checkDescriptor(from.directory);
  checkDescriptor(to.directory);
  const c = library();
  const result = c.symbols.linkat(from.directory, toText(from.name, 0), to.directory, toText(to.name, 1), 0);
  if (result !== 0) throw failureOf("linkat", readInt(c.errno));
}
