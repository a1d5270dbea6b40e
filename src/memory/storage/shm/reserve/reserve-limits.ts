/** Every bound and chosen number of the reserve, one line each. `bench/create-write.ts` says what they are worth together. */

import { GiB, KiB, MiB } from "../../../limits.ts";

export const reserveLimits = {
  /** How large it is where nobody says: none below this limit of all regions, else this share of it up to that size. */
  leastLimitBytes: 4 * GiB,
  defaultPercent: 5,
  defaultBytes: 1 * GiB,
  /** Nice value of the thread that fills it: more than other lanes', so nobody waits for it. On a machine with no core free it hardly moves. */
  nice: 15,
  /** How long a stop waits for what is being made. What is left then the next start frees. */
  stopMs: 5000,
  /** Data of small regions for which segments lie ready, each with an open descriptor, and how many of each. */
  classes: [
    { dataBytes: 64 * KiB, count: 8 },
    { dataBytes: 256 * KiB, count: 4 },
    { dataBytes: 1 * MiB, count: 4 },
  ],
  /** Of fewer descriptors than this none is held open for that. */
  leastDescriptors: 1024,
  /** Huge pages are made in windows of this size: who needs the memory waits for one of them, by a thread that others go before. */
  windowBytes: 4 * MiB,
  /** A larger segment is cut to a region of at least this part of it, and extended to one of up to so many times its size. */
  cutShare: 2,
  extendShare: 4,
  /** Sizes of large regions that are remembered: one that was asked for twice among them is kept ready. */
  remembered: 8,
  /** How long a start goes on without a huge segment, and how long after one was used the next is made. */
  startMs: 2000,
  refillMs: 20,
  /** After the kernel had no huge page it is asked for none for so long. */
  refusedMs: 30_000,
  /** How often it is looked whether others need the memory. */
  lookMs: 1000,
  /** It is given back where less of the machine's memory can be had, or some task waits for memory for more of the time (PSI, avg10). */
  availablePercent: 5,
  stallPercent: 10,
  /** It is filled again once more can be had, and tasks wait for less. */
  calmAvailablePercent: 10,
  calmStallPercent: 1,
  /** With less free in the file system it is given back; filling it leaves twice as much. */
  freeBytes: 64 * MiB,
  /** Sealed regions that wait for huge pages. */
  collapseQueue: 1000,
} as const;
