/** Every storage that there is, opened in a place of its own, as the conformance suite takes it. */

import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceHost } from "../../../src/cuda/device-host.ts";
import { readHugeSpace } from "../../../src/memory/host/memory-space.ts";
import { MiB } from "../../../src/memory/limits.ts";
import { FileStorage } from "../../../src/memory/storage/file/file-storage.ts";
import { HeapStorage } from "../../../src/memory/storage/heap/heap-storage.ts";
import { InstanceDirectory } from "../../../src/memory/storage/instance-directory.ts";
import { HostLanes } from "../../../src/memory/storage/lane.ts";
import { MemfdStorage } from "../../../src/memory/storage/memfd/memfd-storage.ts";
import { Memfds } from "../../../src/memory/storage/memfd/memfds.ts";
import { Reserve } from "../../../src/memory/storage/shm/reserve/reserve.ts";
import { type ShmOptions, ShmStorage } from "../../../src/memory/storage/shm/shm-storage.ts";
import {
  type Access,
  type HugePage,
  hugePageBytes,
  type Identity,
  type Storage,
  type StorageKind,
} from "../../../src/memory/storage/storage.ts";
import { defaultShmDirectory, testToken } from "../../harness/instance.ts";
import { StandInStorage } from "./stand-in-storage.ts";

export interface OpenStorage extends AsyncDisposable {
  readonly storage: Storage;
  /** Of regions that are files: makes one of so many bytes, and points the region at it. */
  readonly bind?: (token: string, byteSize: number, isRemote?: boolean) => Identity;
  /** Any path by which a worker, or the test in its place, reaches the memory of a kept region. */
  pathOf(token: string): string;
}

/** A storage, on a kind of file system. */
export interface StorageCase {
  readonly name: string;
  readonly kind: StorageKind;
  readonly accesses: readonly Access[];
  /** Whether somebody may take its memory away, cut it, or link it elsewhere: the kernel refuses that of what has no name at all. */
  readonly isFile: boolean;
  /** @param readyBytes how much lies ready where that is what it is about: huge segments of up to half of it. */
  open(readyBytes: number): OpenStorage | Promise<OpenStorage>;
  /** The size of its pages, if they are others than the system's. */
  readonly pageBytes?: number;
  /** Whether the bytes are elsewhere than where this process reads and writes: its paths lead to their locks alone, and there is no header. */
  readonly isElsewhere?: boolean;
  /** Whether its regions are files of somebody else's: what it makes, changes and frees is nothing but what points at them. */
  readonly isPointing?: boolean;
  /** Whether pages lie ready when the suite begins. */
  readonly isReady?: boolean;
  /** Why it cannot be had here. */
  readonly needs?: string | undefined;
}

/** Set where the loader finds a driver that is to be asked: `device.test.ts` does so with the stand-in, `npm run test:gpu` with a card's. */
export const hasDriver = process.env.TEST_DEVICE_DRIVER !== undefined;

/** Whoever administers the host reserves them: `echo 64 > /proc/sys/vm/nr_hugepages` is enough for the suite. */
function needsHugePages(byteSize: number): string | undefined {
  const { freeBytes } = readHugeSpace(hugePageBytes["2MiB"]);
  return freeBytes >= byteSize ? undefined : `needs ${byteSize} bytes of reserved huge pages (vm.nr_hugepages)`;
}

const named = { isFile: true, accesses: ["sealed", "open", "sealed-stock-writable"] } as const;
const unnamed = { accesses: ["sealed", "open"] } as const;

export const storageCases: readonly StorageCase[] = [
  { name: "shm on a tmpfs", kind: "shm", ...named, open: () => openShm(defaultShmDirectory) },
  {
    name: "shm that lay ready",
    kind: "shm",
    ...named,
    isReady: true,
    open: (readyBytes) => openReady(readyBytes, false),
  },
  {
    name: "private shm that lay ready",
    kind: "shm",
    ...unnamed,
    isFile: true,
    isReady: true,
    open: (readyBytes) => openReady(readyBytes, true),
  },
  { name: "shm on a disk", kind: "shm", ...named, open: () => openShm(tmpdir()) },
  {
    name: "private shm",
    kind: "shm",
    ...unnamed,
    isFile: true,
    open: () => openShm(defaultShmDirectory, { isPrivate: true }),
  },
  // Whether they are huge or not: where none is left they are small.
  {
    name: "shm of huge files",
    kind: "shm",
    ...named,
    open: () => openShm(defaultShmDirectory, { hasHugeFiles: true }),
  },
  { name: "memfd", kind: "memfd", ...unnamed, isFile: false, open: () => openMemfd(null) },
  {
    ...{ name: "memfd of huge pages", kind: "memfd", ...unnamed, isFile: false, open: () => openMemfd("2MiB") },
    pageBytes: hugePageBytes["2MiB"],
    needs: needsHugePages(100 * MiB),
  },
  { name: "heap", kind: "heap", ...unnamed, isFile: false, open: openHeap },
  ...(hasDriver
    ? [{ name: "cuda_vmm", kind: "cuda_vmm", ...unnamed, isFile: false, isElsewhere: true, open: openDevice } as const]
    : []),
  { name: "file", kind: "file", accesses: ["sealed"], isFile: false, isPointing: true, open: openFiles },
  { name: "a stand-in without public names", kind: "file", ...named, open: openStandIn },
];

function openShm(parent: string, options: ShmOptions = {}): OpenStorage {
  using opened = new DisposableStack();
  const directory = openDirectory(opened, parent);
  const storage = new ShmStorage(directory, opened.use(new HostLanes()), options);
  return toOpen(opened.move(), directory, storage);
}

/** With a reserve that is full when the suite begins: of whatever pages this kernel has. */
async function openReady(readyBytes: number, isPrivate: boolean): Promise<OpenStorage> {
  using opened = new DisposableStack();
  const directory = openDirectory(opened, defaultShmDirectory);
  const lanes = opened.use(new HostLanes());
  const reserve = new Reserve({
    budgetBytes: readyBytes,
    pathOf: (name) => directory.path("new", name),
    roomBytes: () => Number.MAX_SAFE_INTEGER,
    freeBytes: () => Number.MAX_SAFE_INTEGER,
    lanes,
    onStep: undefined,
    onWarning: () => {},
    readPressure: () => ({ meminfo: undefined, pressure: undefined }),
    hugeAfterMs: 0,
    nice: 0,
  });
  const storage = new ShmStorage(directory, lanes, { isPrivate, reserve });
  await reserve.start();
  await reserve.settled();
  const open = toOpen(opened.move(), directory, storage);
  const close = async () => {
    await reserve[Symbol.asyncDispose]();
    await open[Symbol.asyncDispose]();
  };
  return { ...open, [Symbol.asyncDispose]: close };
}

function openDirectory(opened: DisposableStack, parent: string): InstanceDirectory {
  const folder = opened.adopt(mkdtempSync(join(parent, `conformance-${testToken}-`)), removeFolder);
  return opened.use(InstanceDirectory.open({ shmDirectory: folder, instance: "test" }));
}

function toOpen(all: DisposableStack, directory: InstanceDirectory, storage: ShmStorage): OpenStorage {
  const { isPrivate } = storage;
  const suffix = isPrivate ? ".private" : "";
  return {
    storage,
    pathOf: (token) => directory.path("keep", token + suffix),
    [Symbol.asyncDispose]: async () => all.dispose(),
  };
}

async function openMemfd(hugePage: HugePage | null): Promise<OpenStorage> {
  using opened = new DisposableStack();
  const memfds = opened.use(await Memfds.open("test"));
  const storage = new MemfdStorage(memfds, opened.use(new HostLanes()), hugePage);
  const all = opened.move();
  const pathOf = (token: string) => `/proc/self/fd/${memfds.find(token)?.fd ?? "none"}`;
  return { storage, pathOf, [Symbol.asyncDispose]: async () => all.dispose() };
}

async function openHeap(): Promise<OpenStorage> {
  using opened = new DisposableStack();
  const memfds = opened.use(await Memfds.open("test"));
  const storage = new HeapStorage(memfds, opened.use(new HostLanes()));
  const all = opened.move();
  const pathOf = (token: string) => `/proc/self/fd/${memfds.find(token)?.fd ?? "none"}`;
  return { storage, pathOf, [Symbol.asyncDispose]: async () => all.dispose() };
}

async function openDevice(): Promise<OpenStorage> {
  using opened = new DisposableStack();
  const memfds = opened.use(await Memfds.open("test"));
  const [storage] = await openDevices(opened, memfds);
  if (storage === undefined) throw new Error("the driver shows no device that can be used");
  const all = opened.move();
  const pathOf = (token: string) => `/proc/self/fd/${memfds.find(token)?.fd ?? "none"}`;
  return { storage, pathOf, [Symbol.asyncDispose]: async () => all.dispose() };
}

/** The storages of all devices that the driver shows, disposed of with `opened`. */
export async function openDevices(opened: DisposableStack, memfds: Memfds) {
  const host = opened.use(new DeviceHost());
  const onWarning = (message: string, error: unknown) => {
    throw new Error(message, { cause: error });
  };
  const { awaited, lanes } = host.open({ memfds, formerDevices: [], onStep: undefined, onWarning });
  if (lanes !== undefined) opened.use(lanes);
  const { storages = [] } = (await awaited?.found) ?? {};
  for (const storage of storages) opened.use(storage);
  return storages;
}

function openFiles(): OpenStorage {
  using opened = new DisposableStack();
  const directory = openDirectory(opened, defaultShmDirectory);
  const root = opened.adopt(mkdtempSync(join(tmpdir(), "conformance-")), removeFolder);
  const storage = new FileStorage(directory, opened.use(new HostLanes()), [root]);
  const bind = (token: string, byteSize: number, isRemote = false) => {
    const path = join(root, token);
    writeFileSync(path, new Uint8Array(byteSize).fill(0x20, 0, Math.min(byteSize, 4096)));
    const { dev, ino, mtimeNs } = statSync(path, { bigint: true });
    const identity = { dev: String(dev), ino: String(ino) };
    return storage.origin.bind(token, {
      ...{ root, below: token, ...identity, byteSize },
      ...{ mtimeNs: String(mtimeNs), isRemote },
    });
  };
  const all = opened.move();
  return { storage, bind, pathOf: (token) => join(root, token), [Symbol.asyncDispose]: async () => all.dispose() };
}

function openStandIn(): OpenStorage {
  using opened = new DisposableStack();
  const folder = opened.adopt(mkdtempSync(join(tmpdir(), "conformance-")), removeFolder);
  const storage = opened.use(new StandInStorage(folder));
  const all = opened.move();
  return { storage, pathOf: (token) => storage.pathOf(token), [Symbol.asyncDispose]: async () => all.dispose() };
}

function removeFolder(path: string): void {
  rmSync(path, { recursive: true });
}
