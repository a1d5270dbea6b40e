/**
 * A stand-in for storages to come that have no public names, as memfd and file: files in a folder of its own, which
 * nobody is told of. It shows that operations on regions need no line for a new kind; it is evidence of nothing else.
 */

import {
  closeSync,
  existsSync,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { TensordError } from "../../../src/memory/error.ts";
import { toChunks } from "../../../src/memory/layout/checksum.ts";
import { hostPool } from "../../../src/memory/naming.ts";
import { askLocks } from "../../../src/memory/os/kernel-lease.ts";
import { DataFile } from "../../../src/memory/storage/data-file.ts";
import type { Access, Bytes, KeptFile, Memory, Names, Storage } from "../../../src/memory/storage/storage.ts";

const modes: Readonly<Record<Access, number>> = { open: 0o600, sealed: 0o400, "sealed-stock-writable": 0o640 };

export class StandInStorage implements Storage, Disposable {
  readonly kind = "file";
  readonly form = "file";
  readonly device = null;
  readonly hasHeader = true;
  readonly isMappable = true;
  readonly isPrivate = false;
  readonly hugePage = null;
  readonly endsWith = "file_system";
  readonly memory: Memory;
  readonly names: Names;
  readonly bytes: Bytes;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    for (const name of ["made", "kept"]) mkdirSync(join(folder, name), { recursive: true });
    this.memory = this.#toMemory();
    this.names = this.#toNames();
    this.bytes = this.#toBytes();
  }

  pathOf(token: string): string {
    return join(this.#folder, "kept", token);
  }

  #madePath(token: string): string {
    return join(this.#folder, "made", token);
  }

  #toMemory(): Memory {
    const space = () => {
      const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(this.#folder);
      const [totalBytes, usedBytes, freeBytes] = [blocks * bsize, (blocks - bfree) * bsize, bavail * bsize];
      return { totalBytes, usedBytes, freeBytes, usedInodes: files - ffree, freeInodes: ffree };
    };
    return {
      pool: hostPool,
      pageSize: 4096,
      elsewhereBytes: 0,
      space,
      allocate: async ({ token, byteSize, header }, signal) => {
        const { freeBytes } = space();
        if (byteSize > freeBytes) {
          const facts = { requested_bytes: byteSize, available_bytes: freeBytes, hint: "Free some." };
          throw new TensordError("out-of-shared-memory", `Cannot allocate ${byteSize} bytes: too few are free`, facts);
        }
        return withFile(this.#madePath(token), "wx+", async (fd) => {
          await Bun.sleep(0);
          signal.throwIfAborted();
          ftruncateSync(fd, byteSize);
          writeSync(fd, header, 0, header.length, 0);
          fchmodSync(fd, modes.open);
          return toIdentity(fstatSync(fd, { bigint: true }));
        });
      },
      discard: async (token) => rmSync(this.#madePath(token), { force: true }),
      discardAll: async () => {
        for (const token of readdirSync(join(this.#folder, "made"))) rmSync(this.#madePath(token));
      },
      usage: (token) => {
        if (!existsSync(this.pathOf(token))) return undefined;
        return withFile(this.pathOf(token), "r", (fd) => ({
          ...askLocks(fd),
          byteSize: fstatSync(fd).size,
        }));
      },
      openDescription: (token, access) => openSync(this.pathOf(token), access === "write" ? "r+" : "r"),
      descriptionPath: (token) => this.pathOf(token),
      setAccess: (token, access) => withFile(this.pathOf(token), "r", (fd) => fchmodSync(fd, modes[access])),
      seal: async () => true,
      free: async (token) => {
        const links = statSync(this.pathOf(token), { throwIfNoEntry: false })?.nlink ?? 1;
        if (links > 1) return "hard-link";
        rmSync(this.pathOf(token), { force: true });
        return "freed";
      },
    };
  }

  #toNames(): Names {
    return {
      lossCause: "removed",
      keep: (token) => renameSync(this.#madePath(token), this.pathOf(token)),
      kept: () => readdirSync(join(this.#folder, "kept")).map((token) => this.#toKept(token)),
      address: () => ({ path: null, shmName: null }),
      publish: () => {},
      // Who cannot look has nothing else to go by: what is kept was told of.
      isPublished: () => true,
      withdraw: () => {},
      inspect: (token) => (existsSync(this.pathOf(token)) ? "intact" : "lost"),
    };
  }

  #toKept(token: string): KeptFile {
    const stat = lstatSync(this.pathOf(token), { bigint: true });
    const access = (Object.keys(modes) as Access[]).find((one) => modes[one] === Number(stat.mode & 0o777n));
    return { token, identity: toIdentity(stat), byteSize: Number(stat.size), access };
  }

  #toBytes(): Bytes {
    return {
      open: (token, access) => DataFile.open(this.pathOf(token), access, (error) => error),
      readPrefix: (token, byteSize) => withFile(this.pathOf(token), "r", (fd) => readAt(fd, 0, byteSize)),
      hash: (token, dataOffset, byteSize, onChunk) =>
        withFile(this.pathOf(token), "r", async (fd) => {
          const hashes: bigint[] = [];
          for (const chunk of toChunks(dataOffset, byteSize - dataOffset)) {
            const bytes = readAt(fd, chunk.byteOffset, chunk.byteSize);
            if (bytes.length < chunk.byteSize) {
              throw new TensordError("io-error", "Cannot read the region to its end: it is cut", {
                hint: "Delete it.",
              });
            }
            hashes.push(Bun.hash.xxHash3(bytes));
            await Bun.sleep(0);
            onChunk(chunk.byteSize);
          }
          return hashes;
        }),
      resident: async (_, byteSize) => byteSize,
      advise: async () => {},
      flush: async () => false,
      fill: (token, dataOffset, byteSize, source, onChunk) =>
        withFile(this.pathOf(token), "r+", async (fd) => {
          const hashes: bigint[] = [];
          for (const chunk of toChunks(0, byteSize - dataOffset)) {
            const bytes = readAt(source.fd, source.byteOffset + chunk.byteOffset, chunk.byteSize);
            writeSync(fd, bytes, 0, bytes.length, dataOffset + chunk.byteOffset);
            hashes.push(Bun.hash.xxHash3(bytes));
            await Bun.sleep(0);
            onChunk(chunk.byteSize);
          }
          return hashes;
        }),
    };
  }

  [Symbol.dispose](): void {}
}

function withFile<Result>(path: string, flags: string, use: (fd: number) => Result): Result {
  const fd = openSync(path, flags);
  const result = use(fd);
  if (result instanceof Promise) return result.finally(() => closeSync(fd)) as Result;
  closeSync(fd);
  return result;
}

function readAt(fd: number, byteOffset: number, byteSize: number): Uint8Array {
  const bytes = new Uint8Array(byteSize);
  return bytes.subarray(0, readSync(fd, bytes, 0, byteSize, byteOffset));
}

function toIdentity({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }) {
  return { dev: dev.toString(), ino: ino.toString() };
}
