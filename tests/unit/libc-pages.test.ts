/** Huge pages made of a file's small ones: the bytes stay, the file takes no more, and a file that is cut ends nobody. */

import { expect, test } from "bun:test";
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { MiB } from "../../src/memory/limits.ts";
import { fallocate } from "../../src/memory/os/libc.ts";
import { collapsePages, populate } from "../../src/memory/os/libc-pages.ts";
import { defaultShmDirectory, testToken } from "../harness/instance.ts";

/** A file of `byteSize` allocated bytes in shared memory, without a name. */
function withPages(byteSize: number, check: (fd: number) => void): void {
  const path = `${defaultShmDirectory}/pages-${testToken}-${crypto.randomUUID()}`;
  const fd = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  try {
    fallocate(fd, 0, byteSize);
    check(fd);
  } finally {
    closeSync(fd);
  }
}

test("every chunk is huge, small or refused, and its bytes are what they were", () => {
  withPages(8 * MiB, (fd) => {
    const bytes = Buffer.alloc(8 * MiB, "some weights ");
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, done);
    const { hugeChunks, smallChunks, refusal } = collapsePages(fd, 2 * MiB, 6 * MiB);
    if (refusal === undefined) expect(hugeChunks + smallChunks).toBe(3);
    else expect(hugeChunks + smallChunks).toBeLessThan(3);
    const after = Buffer.alloc(8 * MiB);
    for (let done = 0; done < after.length; ) done += readSync(fd, after, done, after.length - done, done);
    expect(after.equals(bytes)).toBeTrue();
    expect(fstatSync(fd).blocks * 512).toBe(8 * MiB);
  });
});

test("memory of our own is there before it is touched", () => {
  const memory = Buffer.allocUnsafeSlow(64 * MiB);
  populate(memory);
  const before = process.resourceUsage().minorPageFault;
  memory.fill(1);
  // Of 16,384 pages, and of what else goes on in this process.
  expect(process.resourceUsage().minorPageFault - before).toBeLessThan(8000);
  // Of less than a page nothing is asked.
  populate(Buffer.alloc(100));
});

test("a file that was cut meanwhile is refused, in words", () => {
  withPages(4 * MiB, (fd) => {
    ftruncateSync(fd, 0);
    const { refusal, ...chunks } = collapsePages(fd, 0, 4 * MiB);
    expect(chunks).toEqual({ hugeChunks: 0, smallChunks: 0 });
    // Where there is no huge page the kernel says that first.
    expect(refusal).toBeOneOf(["EINVAL", "ENOMEM", "EBUSY"]);
  });
});

test("part of a chunk is our mistake", () => {
  withPages(4 * MiB, (fd) => {
    expect(() => collapsePages(fd, 0, 3 * MiB)).toThrow("whole chunks");
    expect(() => collapsePages(fd, MiB, 2 * MiB)).toThrow("whole chunks");
  });
});
