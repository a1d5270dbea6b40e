/**
 * The Worker behind a lane: runs one blocking job at a time and answers with its result or its errno. It decides
 * nothing.
 */

import { closeSync, fstatSync, ftruncateSync, readSync, unlinkSync, writeSync } from "node:fs";
import { SystemError } from "../error.ts";
import { limits } from "../limits.ts";
import { readWhole } from "../os/files.ts";
import { fallocate, readDescriptorLimit } from "../os/libc.ts";
import { adviseOn, dropCached } from "../os/libc-files.ts";
import { addSeals, writeMapped } from "../os/libc-memory.ts";
import { countResident, populate } from "../os/libc-pages.ts";
import { yieldToRequests } from "../os/nice.ts";
import type { Job, JobReply } from "./lane.ts";

declare const self: Worker;

yieldToRequests();

let chunk: Buffer | undefined;
let chunkTimer: Timer | undefined;

self.onmessage = (event: MessageEvent<Job>) => {
  self.postMessage(run(event.data));
};

function run(job: Job): JobReply {
  try {
    return { ok: true, value: perform(job) };
  } catch (error) {
    if (error instanceof SystemError) return { ok: false, call: error.call, errno: error.errno, code: error.code };
    const { syscall = job.kind, errno = 0, code = String(error) } = error as NodeJS.ErrnoException;
    return { ok: false, call: syscall, errno: Math.abs(errno), code };
  }
}

function perform(job: Job): bigint {
  switch (job.kind) {
    case "allocate":
      fallocate(job.fd, job.byteOffset, job.byteSize);
      return 0n;
    case "hash":
      return hash(job.fd, job.byteOffset, job.byteSize);
    case "copy":
      return copy(job);
    case "compare":
      return compare(job);
    case "advise":
      adviseOn(job.fd, job.byteOffset, job.byteSize, job.advice);
      return 0n;
    case "resident":
      return BigInt(countResident(job.fd, job.byteOffset, job.byteSize, job.pageBytes));
    case "seal":
      addSeals(job.fd, "write");
      return 0n;
    case "cut":
      ftruncateSync(job.fd, job.byteSize);
      return 0n;
    case "close":
      closeSync(job.fd);
      return 0n;
    case "start":
      // Binds the C library, so that nothing is loaded later.
      readDescriptorLimit();
      return 0n;
    case "unlink":
      unlinkSync(job.path);
      return 0n;
  }
}

/** Reads with pread, never through a mapping: a worker that truncates the file makes a short read here, not a SIGBUS. */
function hash(fd: number, byteOffset: number, byteSize: number): bigint {
  return Bun.hash.xxHash3(readChunk(fd, byteOffset, byteSize));
}

/**
 * What is hashed is what is written, whatever becomes of the source meanwhile. Each piece is written right after it was read, out of the
 * processor's caches.
 */
function copy(job: Extract<Job, { kind: "copy" }>): bigint {
  const { fd, byteOffset, byteSize, toFd, toOffset, mappedPageBytes, dropsRead } = job;
  const bytes = takeChunk(byteSize);
  const pieceBytes = pieceBytesFor(toFd);
  for (let done = 0; done < byteSize; ) {
    // Up to a boundary of the file's: of a page that is written whole no byte is zeroed first.
    const piece = bytes.subarray(done, done + pieceBytes - ((toOffset + done) % pieceBytes));
    readWhole(fd, piece, byteOffset + done);
    if (mappedPageBytes === undefined) writeWhole(toFd, piece, toOffset + done);
    else writeMapped(toFd, toOffset + done, piece, mappedPageBytes);
    done += piece.length;
  }
  if (dropsRead) dropCached(fd, byteOffset, byteSize);
  return Bun.hash.xxHash3(bytes);
}

/** stat(2): of a file whose pages are huge `st_blksize` is their size. */
function pieceBytesFor(fd: number): number {
  return Math.min(Math.max(limits.copyPieceBytes, fstatSync(fd).blksize), limits.hugePageBytes);
}

function writeWhole(fd: number, bytes: Buffer, byteOffset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, byteOffset + done);
  }
}

/** Ends at the first piece that differs. What the other file does not have differs. */
function compare(job: Extract<Job, { kind: "compare" }>): bigint {
  const { fd, byteOffset, byteSize, otherFd, otherOffset, dropsRead } = job;
  const one = Buffer.allocUnsafe(limits.hashReadBytes);
  const other = Buffer.allocUnsafe(limits.hashReadBytes);
  let same = true;
  for (let done = 0; same && done < byteSize; done += one.length) {
    const piece = one.subarray(0, byteSize - done);
    readWhole(fd, piece, byteOffset + done);
    same = piece.equals(readUpTo(otherFd, other.subarray(0, piece.length), otherOffset + done));
  }
  if (dropsRead) dropCached(fd, byteOffset, byteSize);
  return same ? 1n : 0n;
}

/** @returns what there is of them. */
function readUpTo(fd: number, bytes: Buffer, byteOffset: number): Buffer {
  let done = 0;
  for (let got = -1; got !== 0 && done < bytes.length; done += got) {
    got = readSync(fd, bytes, done, bytes.length - done, byteOffset + done);
  }
  return bytes.subarray(0, done);
}

/** The bytes are there until the next chunk is read. */
function readChunk(fd: number, byteOffset: number, byteSize: number): Buffer {
  const bytes = takeChunk(byteSize);
  readWhole(fd, bytes, byteOffset);
  return bytes;
}

/** To be filled; what was in it is of no use any more. */
function takeChunk(byteSize: number): Buffer {
  if (chunk === undefined) {
    chunk = Buffer.allocUnsafeSlow(limits.checksumChunkBytes);
    populate(chunk.subarray(0, byteSize));
  }
  clearTimeout(chunkTimer);
  chunkTimer = setTimeout(releaseChunk, limits.hashBufferIdleMs);
  return chunk.subarray(0, byteSize);
}

function releaseChunk(): void {
  chunk = undefined;
}
