/** Every bound and number of the doctor, one line each. */

import { GiB, MiB } from "../limits.ts";

export const thresholds = {
  /** What container runtimes give `/dev/shm` unless they are told otherwise. */
  containerDefaultBytes: 64 * MiB,
  /** Under this a warning: one model's weights do not fit. */
  smallBytes: 1 * GiB,
  /** Free bytes and inodes under this share of all are few. */
  fewPercent: 5,
  /** Foreign files that take more than this share of the file system are in the way. */
  foreignPercent: 10,
  /** Foreign files, other instances and draining regions that are told one by one. */
  shownItems: 10,
  /** Directory entries looked at; what is beyond them is only counted. */
  scannedEntries: 200_000,
  /** How deep foreign directories are searched. */
  scannedDepth: 4,
  /** Regions whose locks are asked for: 5 µs each, off the event loop. */
  lockedEntries: 100_000,
  /** Each connection and subscriber takes a descriptor. */
  fewOpenFiles: 4096,
  /** Descriptors in use beyond this share of their limit are many. */
  openFilesPercent: 80,
  /** uids from here on are people's (SYS_UID_MAX of login.defs(5) is 999), whose files logind removes. */
  firstPersonalUid: 1000,
  /** A region that drains for longer is asked about. */
  longDrainMs: 60_000,
  /** Longest time that the host's facts may take. */
  gatherMs: 30_000,
} as const;
