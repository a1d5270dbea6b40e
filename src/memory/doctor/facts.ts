/** What a diagnosis is judged by: plain records that can travel to a Worker and back. Nothing here reads anything. */

import type { DeviceReport } from "../host/device.ts";

/** What `gather.ts` is told to look at. */
export interface Question {
  readonly instance: string;
  readonly shmDirectory: string;
  /** The Unix socket; null if none is to be looked at. */
  readonly socket: string | null;
  /** The broker's. */
  readonly broker: string | null;
  /** Of the server, or of who would start one. */
  readonly uid: number;
  /** The operator's bound of all regions together, if there is one. */
  readonly settingBytes: number | undefined;
  /** Paths through the server's descriptors of the shared directory and of the keeper; null without a server. */
  readonly held: { readonly shm: string; readonly keep: string } | null;
  /** Tokens of regions that drain. */
  readonly draining: readonly string[];
}

export interface HostFacts {
  readonly systemd: { readonly isRunning: boolean; readonly removesIpc: boolean };
  /** The shared directory; null with the errno if it cannot be read. */
  readonly shm: DirectoryFacts | null;
  readonly shmErrno: string | null;
  readonly fileSystem: FileSystemFacts | null;
  /** The instance's directory as its path shows it; null if it is not there. */
  readonly own: DirectoryFacts | null;
  readonly socket: SocketFacts | null;
  readonly broker: SocketFacts | null;
  readonly lock: LockFacts;
  /** Where a directory that the server holds is now, if its path shows another one or none. */
  readonly moved: { readonly shm: string | null; readonly keep: string | null };
  readonly limit: LimitFacts;
  readonly swap: { readonly totalBytes: number; readonly freeBytes: number };
  readonly openFiles: { readonly limit: number; readonly used: number };
  /** Whether this process watches the shared directory. */
  readonly isWatching: boolean;
  readonly scan: ScanFacts;
  readonly draining: readonly DrainFacts[];
  readonly barred: BarredFacts;
}

/** What stands where a socket should. */
export interface SocketFacts {
  readonly isSocket: boolean;
  readonly mode: number;
}

export interface DirectoryFacts {
  readonly uid: number;
  readonly gid: number;
  /** With the sticky and the setgid bit, without the file's type. */
  readonly mode: number;
}

export interface FileSystemFacts {
  readonly type: string;
  /** 0: it has no bound of its own. */
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** 0: it has no bound of its own. */
  readonly totalInodes: number;
  readonly freeInodes: number;
}

/** `unknown`: we may not look. */
export interface LockFacts {
  readonly state: "held" | "free" | "unknown";
  readonly pid: string | null;
}

/** What the pool would get if a server started now; `failure` if none could. */
export type LimitFacts =
  | { readonly limitBytes: number; readonly reason: string; readonly cgroup: CgroupLimit | null }
  | { readonly failure: string; readonly hint: string };

/** The smallest cgroup's share, and what the pool would get without any cgroup. */
export interface CgroupLimit {
  readonly bytes: number;
  readonly reason: string;
  /** null: only the cgroup bounds the pool. */
  readonly otherwiseBytes: number | null;
}

export interface FileFacts {
  readonly path: string;
  readonly uid: number;
  readonly bytes: number;
}

export interface ScanFacts {
  readonly entries: number;
  /** False if there were more entries than are looked at. */
  readonly isWhole: boolean;
  readonly foreign: {
    readonly files: number;
    readonly bytes: number;
    readonly largest: readonly FileFacts[];
    /** Bytes and files by uid, the largest first. */
    readonly owners: readonly { readonly uid: number; readonly files: number; readonly bytes: number }[];
  };
  /** Other instances of tensord in the same directory. */
  readonly instances: readonly InstanceFacts[];
}

export interface InstanceFacts {
  readonly instance: string;
  readonly uid: number;
  readonly regions: number;
  readonly bytes: number;
  readonly lock: LockFacts;
}

export interface DrainFacts {
  readonly token: string;
  /** When its name went, in ms since the epoch. */
  readonly sinceMs: number;
  readonly links: number;
  readonly ino: string;
}

/** Regions whose lease byte somebody write-locks. */
export interface BarredFacts {
  readonly files: readonly { readonly token: string; readonly ino: string }[];
  /** False if there were more regions than are looked at. */
  readonly isWhole: boolean;
}

/** What the running server adds. */
export interface ServerFacts {
  readonly pid: number;
  readonly urls: readonly string[];
  /** What TCP may be called beside loopback names. */
  readonly allowedHosts: readonly string[];
  readonly limitBytes: number;
  readonly drainingRegions: number;
  readonly drainingBytes: number;
  /** Some of them, the oldest first. */
  readonly draining: readonly DrainingRegion[];
  /** Tokens of barred regions, and what they are called. */
  readonly barred: ReadonlyMap<string, string>;
  readonly elasticPools: number;
  /** Pages that workers have too long after they left; some of them. */
  readonly overdue: readonly OverdueFacts[];
  /** Pages that nobody uses and that were not given back; some of them. */
  readonly owed: readonly OwedFacts[];
  /** null: it may open any number of files. */
  readonly descriptors: DescriptorFacts | null;
  readonly reserve: ReserveFacts;
  /** How many descriptors its fd holder should have; null if the server has none kept (TENSORD_HOLDER_TTL_MS). */
  readonly toBeHeld: number | null;
  readonly files: MappedFileFacts;
}

/** Regions that are files of somebody else's. */
export interface MappedFileFacts {
  readonly mapped: number;
  /** Those whose file is not what it was; some of them. */
  readonly changed: readonly { readonly description: string; readonly path: string; readonly state: string }[];
}

export interface OverdueFacts {
  /** What pool and worker are called. */
  readonly pool: string;
  readonly worker: string;
  readonly isConnected: boolean;
  readonly byteSize: number;
  /** When they left, in ms since the epoch. */
  readonly sinceMs: number;
}

export interface OwedFacts {
  readonly pool: string;
  readonly page: number;
  readonly isStuck: boolean;
  readonly sinceMs: number;
  /** What the last try failed with. */
  readonly reason: string;
}

/** What lies ready for regions to come. */
export interface ReserveFacts {
  /** What it may take, and takes. */
  readonly budgetBytes: number;
  readonly bytes: number;
  /** Why there can be none on this host; null if there can. */
  readonly absence: string | null;
  /** Why it makes no huge pages; null if it does. */
  readonly smallOnly: string | null;
  /** Of which huge pages were made, and of which not. */
  readonly hugeChunks: number;
  readonly smallChunks: number;
}

export interface DescriptorFacts {
  /** How many the server may have open, those that it spares included. */
  readonly limit: number;
  /** Connections that fit beside what it holds itself. */
  readonly connections: number;
}

export interface DrainingRegion {
  readonly token: string;
  /** Its id, and its name if it still has one. */
  readonly description: string;
  readonly byteSize: number;
  readonly waitsFor: "lease" | "hard-link" | null;
}

/** The process that keeps descriptors while no server runs. `silent`: there is one, and it does not answer. */
export type HolderFacts =
  | { readonly state: "none" }
  | { readonly state: "silent"; readonly reason: string; readonly hint: string }
  | { readonly state: "running"; readonly pid: number; readonly descriptors: number; readonly ageMs: number };

export interface Facts {
  readonly question: Question;
  readonly host: HostFacts;
  readonly holder: HolderFacts;
  readonly devices: DeviceReport;
  /** null: no server answers, and the directory alone was looked at. */
  readonly server: ServerFacts | null;
  /** In ms since the epoch. */
  readonly now: number;
}
