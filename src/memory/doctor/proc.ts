/** Texts of `/proc` that a diagnosis needs. Pure; reads nothing. */

/** Lines of `/proc/meminfo` (proc_meminfo(5)), in bytes. */
export function parseMeminfo(text: string): Readonly<Record<string, number>> {
  const lines = [...text.matchAll(/^(\w+):\s+(\d+) kB$/gm)];
  return Object.fromEntries(lines.map(([, name = "", kibibytes]) => [name, Number(kibibytes) * 1024]));
}

/** The soft limit of open files in `/proc/self/limits`; infinite if it says so or cannot be read. */
export function parseOpenFilesLimit(text: string): number {
  const soft = /^Max open files\s+(\d+)\s/m.exec(text)?.[1];
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
}

export interface WatchedFile {
  readonly ino: bigint;
  /** As stat(2) tells it. */
  readonly dev: bigint;
}

/** Lines `inotify wd:1 ino:… sdev:… …` of a descriptor's fdinfo (proc_pid_fdinfo(5)). */
export function parseWatches(text: string): WatchedFile[] {
  return [...text.matchAll(/^inotify wd:\S+ ino:([0-9a-f]+) sdev:([0-9a-f]+) /gm)].map(([, ino, sdev]) => ({
    ino: BigInt(`0x${ino}`),
    dev: toUserDevice(BigInt(`0x${sdev}`)),
  }));
}

/** The kernel's own device number (12 bits major, 20 bits minor) as stat(2) tells it: linux/kdev_t.h, new_encode_dev. */
function toUserDevice(sdev: bigint): bigint {
  const major = sdev >> 20n;
  const minor = sdev & 0xfffffn;
  return (minor & 0xffn) | (major << 8n) | ((minor & 0xfff00n) << 12n);
}
