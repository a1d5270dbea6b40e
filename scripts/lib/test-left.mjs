/** The shared memory directory before and after tests: whether it has room for them, and what they left in it. */

import { existsSync, readdirSync, statfsSync } from "node:fs";
import { Failure } from "./process.mjs";

const MiB = 1024 * 1024;
export const shmDirectory = "/dev/shm";
const minimumBytes = 128 * MiB;
/** With less, tests run one at a time: each may take what is there. */
const sharedBytes = 1024 * MiB;

/** @throws {Failure} where no test could run. @returns whether tests can run beside each other */
export function checkSharedMemory() {
  if (!existsSync(shmDirectory)) {
    throw new Failure(
      `Cannot test: there is no ${shmDirectory} here, and the tests need a tmpfs there. Run them on Linux.`,
    );
  }
  const { bsize, blocks } = statfsSync(shmDirectory);
  const size = bsize * blocks;
  if (size >= minimumBytes) return size >= sharedBytes;
  throw new Failure(
    `Cannot test: ${shmDirectory} holds ${Math.floor(size / MiB)} MiB, want at least ${minimumBytes / MiB} MiB. Enlarge it: ` +
      `\`mount -o remount,size=1G ${shmDirectory}\` as root, or start the container with \`docker run --shm-size=1g\`.`,
  );
}

/**
 * What lies in the shared memory directory under one of the marks. Tests put the mark of their part into every name that
 * they make there, so that parts can run beside each other, and beside other people's servers.
 *
 * @param {string[]} marks
 */
export const findLeft = (marks) =>
  existsSync(shmDirectory) ? readdirSync(shmDirectory).filter((name) => marks.some((mark) => name.includes(mark))) : [];
