/**
 * What this host and this server can do, in words that clients and people decide by. It reads what the kernel shows and
 * tries nothing out.
 */

import { realpathSync, statfsSync } from "node:fs";
import { release } from "node:os";
import { withSpare } from "../os/descriptors.ts";
import { readTextIfThere } from "../os/files.ts";
import { listHugePageBytes, type MemorySpace, readHugeSpace } from "./memory-space.ts";
import { findMount, type Mount } from "./mount.ts";

/** What this server offers. Clients send only what is here; each name has an operation behind it. */
export const features = [
  "regions",
  "models",
  "attach",
  "replace",
  "wait",
  "groups",
  "labels",
  "checksum",
  "stock-writable",
  "sessions",
  "claims",
  "rebuild",
  "leases",
  "linger",
  "hand-offs",
  "evict",
  "on-full",
  "events",
  "data",
  "aliases",
  "private",
  "huge-pages",
  "devices",
  "elastic-pools",
  "map",
  "advise",
  "flush",
  "doctor",
  "metrics",
] as const;

/** The newest version of the broker's protocol that is spoken here. */
export const brokerVersion = 1;

/**
 * What memory ends with. `file_system`: the tmpfs of the shared directory. `container`: everything that runs beside the server, its fd
 * holder too; or with that alone, when its time is over. `server`: the server's process.
 */
export const storageEnds = ["file_system", "container", "server"] as const;
export type StorageEnd = (typeof storageEnds)[number];

export interface StorageCapability {
  readonly kind: "shm" | "memfd" | "file" | "heap" | "cuda_vmm";
  readonly available: boolean;
  /** Whether its regions are there again after the server was killed. */
  readonly survivesRestart: boolean;
  /** What takes them along at last; null where there are none. */
  readonly endsWith: StorageEnd | null;
  /** Why it is not available. */
  readonly reason: string | null;
}

const notOffered = "This server is told not to offer it (TENSORD_STORAGES).";
const noMemfd = "The kernel, or a filter before it, refuses memfd_create.";

/** Why there is none, and whether its regions would outlive the server. In the order in which a client would choose. */
const absences: readonly Omit<StorageCapability, "available" | "endsWith">[] = [
  { kind: "shm", survivesRestart: true, reason: "There is no shared memory directory." },
  { kind: "memfd", survivesRestart: false, reason: noMemfd },
  { kind: "file", survivesRestart: true, reason: "This server is told of no files (TENSORD_MODEL_ROOTS)." },
  { kind: "heap", survivesRestart: false, reason: noMemfd },
  { kind: "cuda_vmm", survivesRestart: false, reason: "This server was not made for device memory." },
];

/**
 * Every kind of storage.
 * @param there those that the server has, of which one kind may come more than once
 * @param withheld kinds of which nothing new is made
 * @param why reasons that were found out for what is absent
 */
export function describeStorages(
  there: Iterable<{ readonly kind: string; readonly endsWith: StorageEnd }>,
  withheld: ReadonlySet<string> = new Set(),
  why: Readonly<Partial<Record<StorageCapability["kind"], string>>> = {},
): readonly StorageCapability[] {
  const byKind = new Map([...there].map((storage) => [storage.kind, storage]));
  return absences.map((absence) => {
    const storage = byKind.get(absence.kind);
    if (storage === undefined) {
      const { [absence.kind]: reason = absence.reason } = why;
      return { ...absence, reason, available: false, endsWith: null };
    }
    if (withheld.has(absence.kind)) return { ...absence, available: false, endsWith: null, reason: notOffered };
    const { endsWith } = storage;
    return { kind: absence.kind, available: true, survivesRestart: endsWith !== "server", endsWith, reason: null };
  });
}

/** When tmpfs takes huge pages: the words of its mount option `huge`. */
export const hugePageModes = ["never", "always", "within_size", "advise"] as const;
export type HugePages = (typeof hugePageModes)[number];

/** Reserved pages of one size, and how much of them nobody has. */
export interface HugePageCapability extends MemorySpace {
  readonly pageBytes: number;
}

export interface HostCapabilities {
  readonly os: string;
  readonly arch: string;
  readonly kernel: string;
  readonly shm: {
    readonly path: string;
    readonly fileSystem: string;
    /** null: the file system has no size of its own. */
    readonly totalBytes: number | null;
    readonly hugePages: HugePages;
    readonly pageSize: number;
  };
  readonly hugePages: readonly HugePageCapability[];
}

/** @param shmDirectory as clients know it. */
export function readCapabilities(shmDirectory: string): HostCapabilities {
  const mountinfo = readTextIfThere("/proc/self/mountinfo") ?? "";
  const shmemEnabled = readTextIfThere("/sys/kernel/mm/transparent_hugepage/shmem_enabled") ?? "";
  const { blocks, bsize } = statfsSync(shmDirectory);
  const mount = findMount(
    mountinfo,
    withSpare(() => realpathSync(shmDirectory)),
  );
  return {
    os: process.platform,
    arch: process.arch,
    kernel: release(),
    shm: {
      path: shmDirectory,
      fileSystem: mount?.type ?? "unknown",
      totalBytes: blocks === 0 ? null : blocks * bsize,
      hugePages: parseHugePages(mount, shmemEnabled),
      pageSize: bsize,
    },
    hugePages: listHugePageBytes()
      .toSorted((a, b) => a - b)
      .map((pageBytes) => ({ pageBytes, ...readHugeSpace(pageBytes) })),
  };
}

/**
 * When a tmpfs takes huge pages: its mount option, unless `shmem_enabled` forces or denies them for all
 * (Documentation/admin-guide/mm/transhuge.rst).
 */
export function parseHugePages(mount: Mount | undefined, shmemEnabled: string): HugePages {
  const chosen = /\[(\w+)\]/.exec(shmemEnabled)?.[1];
  if (mount?.type !== "tmpfs" || chosen === "deny" || chosen === undefined) return "never";
  if (chosen === "force") return "always";
  const option = mount.options.find((text) => text.startsWith("huge="))?.slice("huge=".length);
  return hugePageModes.find((mode) => mode === option) ?? "never";
}
