/** The Worker behind the reserve's lane: runs one job at a time and answers with its result or its errno. It decides nothing. */

import { closeSync, constants, ftruncateSync, openSync, unlinkSync } from "node:fs";
import { SystemError } from "../../../error.ts";
import { limits } from "../../../limits.ts";
import { fallocate, readDescriptorLimit } from "../../../os/libc.ts";
import { type Collapsed, collapsePages } from "../../../os/libc-pages.ts";
import { yieldToRequests } from "../../../os/nice.ts";
import type { ReserveJob, ReserveReply } from "./reserve-lane.ts";

declare const self: Worker;

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

let nice: number | undefined;

self.onmessage = (event: MessageEvent<ReserveJob>) => {
  self.postMessage(run(event.data));
};

function run(job: ReserveJob): ReserveReply {
  try {
    return { ok: true, value: perform(job) };
  } catch (error) {
    if (error instanceof SystemError) return { ok: false, call: error.call, errno: error.errno, code: error.code };
    const { syscall = job.kind, errno = 0, code = String(error) } = error as NodeJS.ErrnoException;
    return { ok: false, call: syscall, errno: Math.abs(errno), code };
  }
}

function perform(job: ReserveJob): number | Collapsed {
  // A server's start waits for its Workers, so this one comes up like any other.
  if (job.kind !== "start" && nice !== undefined) {
    yieldToRequests(nice);
    nice = undefined;
  }
  switch (job.kind) {
    case "start":
      nice = job.nice;
      // Binds the C library, so that nothing is loaded later.
      readDescriptorLimit();
      return 0;
    case "make":
      return make(job.path, job.byteSize);
    case "grow":
      return grow(job.fd, job.byteOffset, job.byteSize);
    case "collapse":
      return collapse(job.path, job.byteOffset, job.byteSize);
  }
}

/** Nobody else may open it, and it is made anew: what was written to another file is never in it. */
function make(path: string, byteSize: number): number {
  const fd = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    if (byteSize > 0) fallocate(fd, 0, byteSize);
    return fd;
  } catch (error) {
    closeSync(fd);
    unlinkSync(path);
    throw error;
  }
}

/** What the kernel makes no huge pages of is cut off again. */
function grow(fd: number, byteOffset: number, byteSize: number): Collapsed {
  fallocate(fd, byteOffset, byteSize);
  const collapsed = collapsePages(fd, byteOffset, byteSize);
  const chunks = collapsed.hugeChunks + collapsed.smallChunks;
  if (collapsed.refusal !== undefined) ftruncateSync(fd, byteOffset + chunks * limits.hugePageBytes);
  return collapsed;
}

/** Opened and closed here: if the file is deleted meanwhile its pages go with this descriptor, and not on the event loop. */
function collapse(path: string, byteOffset: number, byteSize: number): Collapsed {
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW);
  try {
    return collapsePages(fd, byteOffset, byteSize);
  } finally {
    closeSync(fd);
  }
}
