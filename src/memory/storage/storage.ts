/**
 * What the store asks of a kind of memory, in three parts: the memory itself, the names by which it is kept and found,
 * and its bytes. One implementation owns one kind and knows no books: it is told what to do, in the order that the store
 * owes to crashes. `tests/conformance` holds every kind to it.
 */

import type { StorageEnd } from "../host/capabilities.ts";
import type { Locks } from "../os/kernel-lease.ts";
import type { PageAdvice } from "../os/libc-files.ts";
import type { DataAccess, DataFile } from "./data-file.ts";
import type { FileChange, Origin } from "./file/origin.ts";
import type { Lane } from "./lane.ts";

/**
 * Every kind that there is a word for. An implementation, its place in `open-store.ts`, and its conformance make one that
 * can be had.
 */
export const storageKinds = ["shm", "memfd", "file", "heap", "cuda_vmm"] as const;
export type StorageKind = (typeof storageKinds)[number];

/** Sizes of pages that Linux has beside its usual ones, and that a region may be made of (`MFD_HUGETLB`). */
export const hugePageBytes = {
  "64KiB": 2 ** 16,
  "2MiB": 2 ** 21,
  "32MiB": 2 ** 25,
  "512MiB": 2 ** 29,
  "1GiB": 2 ** 30,
  "16GiB": 2 ** 34,
} as const;
export type HugePage = keyof typeof hugePageBytes;

/**
 * What made a region, as its row says it: a kind, or a form of it. Each form is a storage of its own, so that a server which
 * does not know it leaves its regions alone.
 */
export type StorageForm = StorageKind | "shm-private" | `memfd-${HugePage}` | DeviceForm;

/** Of the memory of one device, by its UUID. */
export type DeviceForm = `cuda_vmm-${string}`;

/** The form of that device's memory; undefined of what is no UUID. */
export function toDeviceForm(uuid: string): DeviceForm | undefined {
  return /^[A-Za-z0-9-]{1,64}$/.test(uuid) ? `cuda_vmm-${uuid}` : undefined;
}

/** The device of `toDeviceForm`. */
export function toDeviceUuid(form: DeviceForm): string {
  return form.slice("cuda_vmm-".length);
}

export function isDeviceForm(form: string): form is DeviceForm {
  return form.startsWith("cuda_vmm-");
}

/** The pages of a form; null are the system's usual ones. */
export function toHugePage(form: StorageForm): HugePage | null {
  return (Object.keys(hugePageBytes) as HugePage[]).find((page) => form === `memfd-${page}`) ?? null;
}

/** A region says by its form which storage made it; that one is asked. */
export interface Storage {
  readonly kind: StorageKind;
  readonly form: StorageForm;
  /** Whether processes map its regions; if not, their bytes come and go over HTTP alone. */
  readonly isMappable: boolean;
  /** Whether nobody finds its regions by a name: they are reached by descriptors that the broker hands out, and over HTTP. */
  readonly isPrivate: boolean;
  /** What its pages are, if they are not the system's usual ones. */
  readonly hugePage: HugePage | null;
  /** Whether a safetensors header lies in front of a region's tensors; without one data begins at its first byte. */
  readonly hasHeader: boolean;
  /** What takes its regions along, when nothing else has ended them. */
  readonly endsWith: StorageEnd;
  /** Of memory on a device, which the file that carries its leases is not; else null. */
  readonly device: DeviceAccess | null;
  /** Of memory that is a file of somebody else's; left out: it is the storage's own. */
  readonly origin?: OriginAccess;
  readonly memory: Memory;
  readonly names: Names;
  readonly bytes: Bytes;
}

/** How memory on a device is handed out: its driver's own handle, as a descriptor beside the lease file's. */
export interface DeviceAccess {
  readonly uuid: string;
  /** What the descriptor is to whoever imports it; an open word. */
  readonly handleType: "posix_fd";
  /** Why no region is made there now; null if regions are. Those that stand are handed out and freed all the same. */
  readonly withheld: Withheld | null;
  /**
   * A descriptor of the region's memory for one receiver, the caller's to close once it was sent. The driver is asked for it.
   * @throws TensordError `out-of-descriptors`, `io-error`, `deadline-exceeded`.
   */
  exportHandle(token: string): Promise<number>;
}

/** Files that regions are, and that are neither made nor freed with them. */
export interface OriginAccess {
  /** Why no region is made of one; null if regions are. */
  readonly withheld: Withheld | null;
  /** From here on the region, which is kept, is that file. @throws TensordError `out-of-shared-memory`. */
  bind(token: string, origin: Origin): Identity;
  /** When the file was last written as it was loaded, in ns since the epoch; null if that is known no more. */
  mtimeNs(token: string): string | null;
  /** The regions that are files. */
  readonly tokens: Iterable<string>;
  /** What the file is since it is not what it was, as far as that was told; else null. */
  changeOf(token: string): FileChange | null;
}

/** Why nothing new is made of a storage, in words that end a sentence. */
export interface Withheld {
  /** Whether to ask again is advice. */
  readonly isForNow: boolean;
  readonly reason: string;
}

/** Pages, and who maps them. */
export interface Memory {
  /** The pool whose memory it is. */
  readonly pool: string;
  /** What a region's size is rounded up to when it is charged. */
  readonly pageSize: number;
  /** What there is, and what of it is free. */
  space(): Space;
  /** Whether its regions are charged for their bytes; left out: they are. */
  readonly isCharged?: boolean;
  /** What its regions take outside of the file system that names and journal are in; negative is what they take there uncharged. */
  readonly elsewhereBytes: number;
  /** Whether it makes regions of what the reserve has, and sees to it that what is left of that is in nobody's way. */
  readonly usesReserve?: boolean;
  /** Of memory whose pages may come as they are written; left out: all are there once it is allocated, whatever a segment says. */
  readonly latePages?: LatePages | undefined;
  /** Allocates the pages, in windows between which `signal` stops it, and writes the header. Nothing is kept yet. */
  allocate(segment: Segment, signal: AbortSignal): Promise<Identity>;
  /** Removes what `allocate` made and nobody kept. */
  discard(token: string, byteSize: number): Promise<void>;
  /** Removes what earlier servers were making when they died. */
  discardAll(): Promise<void>;
  /** Who maps the region now, as the kernel knows it; undefined if its memory is gone. */
  usage(token: string): Usage | undefined;
  /**
   * Opens the region anew: an open file description that nobody shares, without locks, and the caller's to close. A descriptor
   * that is sent to another process is sent as it is, with its description's locks and access.
   */
  openDescription(token: string, access: DataAccess): number;
  /** What is opened for that, in every thread of this process, for as long as the region is not freed. */
  descriptionPath(token: string): string;
  /** Says by the memory itself who may open it how. @throws TensordError if it has no such access. */
  setAccess(token: string, access: Access): void;
  /** Takes the current mark off a sealed region, of memory that bears one. */
  unmark?(token: string, access: Access): void;
  /**
   * Makes the bytes final by the kernel's word, where it has one for this memory: it cannot be taken back.
   * @returns whether they are as final as they get; false if somebody maps them for writing, whatever locks say.
   */
  seal(token: string): Promise<boolean>;
  /** Frees a region that has no name and no lease; `hard-link` if something else still links it. */
  free(token: string, byteSize: number): Promise<"freed" | "hard-link">;
}

/**
 * Pages of segments that are written whole right after they were made: a page that comes with its bytes costs half of one that is allocated
 * before. Until they are complete they are promised, and nobody else's.
 */
export interface LatePages {
  /**
   * Runs what writes some of them; what it fails with passes, unless that is for want of a page.
   * @throws TensordError `out-of-shared-memory`, and at once where others have left too little for all that are still to come.
   */
  write<Result>(token: string, byteSize: number, write: () => Promise<Result>): Promise<Result>;
  /**
   * Allocates those that nobody wrote, in windows between which `signal` stops it: from here on all are there. Of another region it does nothing.
   * @throws TensordError `out-of-shared-memory`.
   */
  complete(token: string, byteSize: number, signal: AbortSignal): Promise<void>;
}

/** How a region outlives the server, and how clients find it. */
export interface Names {
  /** What it means that a region which has a row is not kept. */
  readonly lossCause: LossCause;
  /** Commits the memory: from here on it outlives the server. */
  keep(token: string): void;
  /** Everything that is kept, as found at start. */
  kept(): readonly KeptFile[];
  /** Where clients find it. */
  address(token: string): Address;
  /** Gives the region its public name; never clobbers. */
  publish(token: string): void;
  /**
   * Whether the public name stands and is a link to this very file. Undefined of memory that has none: then the proof of its
   * name tells alone whether it was entered.
   */
  isPublished(token: string, identity: Identity): boolean | undefined;
  /** Takes the public name away, if it still is this region's. */
  withdraw(token: string, identity: Identity): void;
  /** Looks at the public name and mends it, in one synchronous turn. */
  inspect(token: string, identity: Identity): NameState;
  /** What `inspect` found `changed` is told, and no news any more. */
  settle?(token: string): void;
}

/** What lies in a region, for those who cannot map it. */
export interface Bytes {
  /** Opens the region with the locks of a reader, or of a writer, until disposed. */
  open(token: string, access: DataAccess): DataFile;
  /** The first bytes, at most `byteSize`. To be treated as hostile: workers could write them. */
  readPrefix(token: string, byteSize: number): Uint8Array;
  /**
   * Hashes `[dataOffset, byteSize)` of the region chunk by chunk.
   * @param onChunk hears after each how many bytes it had, and maybe in between of none; what it throws ends the work.
   */
  hash(
    token: string,
    dataOffset: number,
    byteSize: number,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]>;
  /**
   * Fills `[dataOffset, byteSize)` of the region from another's file, chunk by chunk, in no order where there are several lanes.
   * @param onChunk as of `hash`.
   * @returns the hashes of what was read there, as `hash` would.
   */
  fill(
    token: string,
    dataOffset: number,
    byteSize: number,
    source: FillSource,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]>;
  /** How many of the region's bytes are in memory; null where the kernel tells only who owns the file, or may write to it. */
  resident(token: string, byteSize: number): Promise<number | null>;
  /** Has the kernel read them ahead, or let go of what nobody maps. Of memory that is the only copy it lets go of nothing. */
  advise(token: string, byteSize: number, advice: PageAdvice): Promise<void>;
  /** Writes what was written to them to where they are kept. @returns whether they are there without power. */
  flush(token: string): Promise<boolean>;
}

/** An open file whose bytes from `byteOffset` on fill a region. */
export interface FillSource {
  readonly fd: number;
  readonly byteOffset: number;
  /** Whether it lies in a file system of its own: once it was read, the kernel's copy of it would be memory held twice. */
  readonly isForeign: boolean;
  /** What copies, each a part of the chunks at the same time; the storage's own lane if they are left out. */
  readonly lanes?: readonly Lane[] | undefined;
  /** Runs what writes a chunk; left out: it is run as it is. */
  readonly writing?: Writing | undefined;
}

/** Runs what writes a part of a region, and has a word in how it goes. */
export type Writing = <Result>(write: () => Promise<Result>) => Promise<Result>;

/** A file's identity, by which both sides see that they look at the same one. Strings, because they are 64 bits wide. */
export interface Identity {
  readonly dev: string;
  readonly ino: string;
}

/** What is to be made: `header` at the front of `byteSize` bytes. */
export interface Segment {
  readonly token: string;
  readonly byteSize: number;
  readonly header: Uint8Array;
  /** Whether all of it is written right after, so that its pages may come as `LatePages`. */
  readonly isWritten?: boolean;
}

export interface Usage extends Locks {
  /** The file's size now; another one than it was made with means that a worker truncated or extended it. */
  readonly byteSize: number;
}

/** How a region may be opened. */
export type Access = "open" | "sealed" | "sealed-stock-writable";

/** Where clients open a region, and its POSIX name for `shm_open`; null where there is none. */
export interface Address {
  readonly path: string | null;
  readonly shmName: string | null;
}

/** What became of a public name that was looked at. `changed`: what it leads to is not what was told of it. */
export type NameState = "intact" | "relinked" | "replaced" | "blocked" | "lost" | "changed";

/** `removed`: somebody took its file away. `not-kept`: nobody held its memory while no server ran. */
export const lossCauses = ["removed", "not-kept"] as const;
export type LossCause = (typeof lossCauses)[number];

export interface KeptFile {
  readonly token: string;
  readonly identity: Identity;
  readonly byteSize: number;
  readonly access: Access | undefined;
}

/** What the memory's file system has and has free. Of a device that has told nothing yet it is nothing. */
export interface Space {
  readonly totalBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  readonly usedInodes: number;
  readonly freeInodes: number;
}

/** What a storage does on its way through `allocate`, in this order; whoever opens the store may be told of each. */
export const allocationSteps = [
  "create.file-made",
  "create.segment-taken",
  "create.window-allocated",
  "create.pages-promised",
  "create.segment-fitted",
  "create.header-written",
] as const;
export type OnAllocationStep = (step: (typeof allocationSteps)[number]) => void;
