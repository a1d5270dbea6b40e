/**
 * Gathers the facts of a diagnosis from the file system and the kernel. It judges nothing and changes nothing. It blocks
 * while it reads, so a server runs it in a Worker.
 */

import { closeSync, constants, fstatSync, lstatSync, readlinkSync, realpathSync, statfsSync, statSync } from "node:fs";
import { TensordError } from "../error.ts";
import { globalLimit } from "../host/capacity.ts";
import { findMemoryLimits, type MemoryLimit } from "../host/cgroup.ts";
import { findMount } from "../host/mount.ts";
import { isOutOfDescriptors, withSpare } from "../os/descriptors.ts";
import { listIfThere as list, openFile, readTextIfThere as read } from "../os/files.ts";
import { askLocks } from "../os/kernel-lease.ts";
import type {
  BarredFacts,
  CgroupLimit,
  DirectoryFacts,
  DrainFacts,
  FileSystemFacts,
  HostFacts,
  LimitFacts,
  Question,
  SocketFacts,
} from "./facts.ts";
import { readRemoveIpc } from "./logind.ts";
import { parseMeminfo, parseOpenFilesLimit, parseWatches, type WatchedFile } from "./proc.ts";
import { readLock, scanDirectory } from "./scan.ts";
import { thresholds } from "./thresholds.ts";

export function gatherFacts(question: Question): HostFacts {
  const { shmDirectory, instance, held } = question;
  const ownPath = `${shmDirectory}/tensord.${instance}`;
  const shm = attempt(() => toDirectoryFacts(statSync(shmDirectory)));
  const fileSystem = attempt(() => readFileSystem(shmDirectory));
  const { SwapTotal = 0, SwapFree = 0 } = parseMeminfo(read("/proc/meminfo") ?? "");
  return {
    systemd: {
      isRunning: attempt(() => statSync("/run/systemd/system").isDirectory()).value === true,
      removesIpc: readRemoveIpc({ read, list }),
    },
    shm: shm.value,
    shmErrno: shm.errno,
    fileSystem: fileSystem.value,
    own: attempt(() => toDirectoryFacts(lstatSync(ownPath))).value,
    socket: readSocket(question.socket),
    broker: readSocket(question.broker),
    lock: readLock(`${ownPath}/lock`),
    moved: {
      shm: held && findMoved(held.shm, shmDirectory),
      keep: held && findMoved(held.keep, `${ownPath}/keep`),
    },
    limit: readLimit(question.settingBytes, fileSystem.value?.totalBytes ?? 0),
    swap: { totalBytes: SwapTotal, freeBytes: SwapFree },
    openFiles: {
      limit: parseOpenFilesLimit(read("/proc/self/limits") ?? ""),
      used: list("/proc/self/fd").length,
    },
    isWatching: held !== null && isWatching(held.shm),
    scan: scanDirectory(question),
    draining: held === null ? [] : question.draining.flatMap((token) => readDraining(held.keep, token)),
    barred: held === null ? { files: [], isWhole: true } : findBarred(held.keep),
  };
}

function toDirectoryFacts(stat: { uid: number; gid: number; mode: number }): DirectoryFacts {
  return { uid: stat.uid, gid: stat.gid, mode: stat.mode & 0o7777 };
}

/** What the file system of `path` is, has and has free. */
export function readFileSystem(path: string): FileSystemFacts {
  const { bsize, blocks, bavail, files, ffree } = statfsSync(path);
  return {
    type:
      findMount(
        read("/proc/self/mountinfo") ?? "",
        withSpare(() => realpathSync(path)),
      )?.type ?? "unknown",
    totalBytes: blocks * bsize,
    freeBytes: bavail * bsize,
    totalInodes: files,
    freeInodes: ffree,
  };
}

/** null: none is to be looked at, or it is not there. */
function readSocket(path: string | null): SocketFacts | null {
  if (path === null) return null;
  const stat = attempt(() => lstatSync(path)).value;
  return stat && { isSocket: stat.isSocket(), mode: stat.mode & 0o777 };
}

/** Where the directory behind `held` is now, if `path` does not lead to it; null if it does. */
function findMoved(held: string, path: string): string | null {
  const is = statSync(held, { bigint: true });
  const shown = attempt(() => statSync(path, { bigint: true })).value;
  if (shown?.ino === is.ino && shown.dev === is.dev) return null;
  return readlinkSync(held.replace(/\/$/, ""));
}

function readLimit(settingBytes: number | undefined, tmpfsBytes: number): LimitFacts {
  const memoryLimits = findMemoryLimits(read);
  try {
    const { limitBytes, reason } = globalLimit({ settingBytes, tmpfsBytes, memoryLimits });
    return { limitBytes, reason, cgroup: readCgroup(memoryLimits, settingBytes, tmpfsBytes) };
  } catch (error) {
    if (!(error instanceof TensordError)) throw error;
    return { failure: error.message, hint: error.facts.hint ?? "" };
  }
}

function readCgroup(
  memoryLimits: readonly MemoryLimit[],
  settingBytes: number | undefined,
  tmpfsBytes: number,
): CgroupLimit | null {
  if (memoryLimits.length === 0) return null;
  const { limitBytes: bytes, reason } = globalLimit({ settingBytes: undefined, tmpfsBytes: 0, memoryLimits });
  const isBoundedElse = settingBytes !== undefined || tmpfsBytes > 0;
  const otherwise = isBoundedElse ? globalLimit({ settingBytes, tmpfsBytes, memoryLimits: [] }).limitBytes : null;
  return { bytes, reason, otherwiseBytes: otherwise };
}

/** Whether one of this process's inotify descriptors watches the directory (proc_pid_fdinfo(5)). */
function isWatching(directory: string): boolean {
  const { ino, dev } = statSync(directory, { bigint: true });
  const isIt = (file: WatchedFile) => file.ino === ino && file.dev === dev;
  return list("/proc/self/fd").some((fd) => {
    const target = attempt(() => readlinkSync(`/proc/self/fd/${fd}`)).value;
    return target === "anon_inode:inotify" && parseWatches(read(`/proc/self/fdinfo/${fd}`) ?? "").some(isIt);
  });
}

/** A file's ctime is when it lost its name, unless somebody has changed its mode or links since. */
function readDraining(keep: string, token: string): DrainFacts[] {
  const stat = attempt(() => lstatSync(keep + token)).value;
  return stat === null ? [] : [{ token, sinceMs: stat.ctimeMs, links: stat.nlink, ino: String(stat.ino) }];
}

function findBarred(keep: string): BarredFacts {
  const tokens = list(keep);
  const looked = tokens.slice(0, thresholds.lockedEntries);
  return { files: looked.flatMap((token) => readBarred(keep, token)), isWhole: looked.length === tokens.length };
}

function readBarred(keep: string, token: string): BarredFacts["files"] {
  // It may have been freed meanwhile.
  const fd = attempt(() => openFile(keep + token, constants.O_RDONLY | constants.O_NOFOLLOW)).value;
  if (fd === null) return [];
  try {
    return askLocks(fd).barred ? [{ token, ino: String(fstatSync(fd, { bigint: true }).ino) }] : [];
  } finally {
    closeSync(fd);
  }
}

/** What `call` gives, or the errno of its failure. Without a descriptor nothing can be told. */
function attempt<Value>(call: () => Value): { value: Value | null; errno: string | null } {
  try {
    return { value: call(), errno: null };
  } catch (error) {
    if (isOutOfDescriptors(error)) throw error;
    return { value: null, errno: (error as NodeJS.ErrnoException).code ?? String(error) };
  }
}
