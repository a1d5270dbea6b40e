/**
 * Regions that are files of somebody else's, which lie where they lie and are mapped there: nothing is copied, allocated or charged. Locks
 * on such files prove nothing, so that who maps one leases it by request. A region's end forgets the file, and does nothing to it.
 */

import { renameSync, statfsSync } from "node:fs";
import { TensordError } from "../../error.ts";
import { hostPool, toRegionId } from "../../naming.ts";
import { DataFile } from "../data-file.ts";
import { FileBytes } from "../file-bytes.ts";
import type { InstanceDirectory } from "../instance-directory.ts";
import type { HostLanes } from "../lane.ts";
import type {
  Address,
  Identity,
  KeptFile,
  Memory,
  NameState,
  Names,
  OriginAccess,
  Segment,
  Space,
  Storage,
  Usage,
  Withheld,
} from "../storage.ts";
import type { FileChange, Origin } from "./origin.ts";
import { toPath } from "./origin.ts";
import { Origins } from "./origins.ts";

export class FileStorage implements Storage {
  readonly kind = "file";
  readonly form = "file";
  readonly isPrivate = false;
  readonly hugePage = null;
  readonly device = null;
  readonly hasHeader = true;
  readonly isMappable = true;
  readonly endsWith = "file_system";
  readonly memory: FileMemory;
  readonly names: FileNames;
  readonly bytes: FileBytes;
  readonly origin: FileOrigins;
  readonly #origins: Origins;

  /** @param roots the folders whose files regions may be. */
  constructor(directory: InstanceDirectory, lanes: HostLanes, roots: readonly string[]) {
    this.#origins = new Origins(directory, roots);
    this.memory = new FileMemory(this.#origins);
    this.names = new FileNames(this.#origins);
    this.bytes = new OriginBytes(this.#origins, lanes.filling);
    this.origin = new FileOrigins(this.#origins);
  }

  /** @param listener hears of regions whose names are to be inspected again. */
  listen(listener: (token: string) => void): void {
    this.#origins.onLook = listener;
  }
}

class FileMemory implements Memory {
  readonly pool = hostPool;
  readonly pageSize: number;
  readonly isCharged = false;
  readonly #origins: Origins;

  constructor(origins: Origins) {
    this.#origins = origins;
    this.pageSize = statfsSync(origins.shm.newPath()).bsize;
  }

  /** The records lie beside the names, and are charged to nobody. */
  get elsewhereBytes(): number {
    return 0 - this.#origins.recordBytes;
  }

  space(): Space {
    return this.#origins.shm.space();
  }

  async allocate({ token }: Segment, signal: AbortSignal): Promise<Identity> {
    signal.throwIfAborted();
    this.#origins.make(token);
    return this.#origins.identityOf(token);
  }

  async discard(token: string): Promise<void> {
    this.#origins.forget(token);
  }

  /** `new/` is emptied by the storage that it is shared with. */
  async discardAll(): Promise<void> {}

  usage(token: string): Usage | undefined {
    if (!this.#origins.has(token)) return undefined;
    const byteSize = this.#origins.of(token)?.byteSize ?? 0;
    return { leased: false, consumed: false, made: false, barred: false, written: false, byteSize };
  }

  openDescription(token: string): never {
    throw toRefusal(token);
  }

  descriptionPath(token: string): never {
    throw toRefusal(token);
  }

  /** Whose file it is says who may open it. */
  setAccess(): void {}

  async seal(): Promise<boolean> {
    return true;
  }

  async free(token: string): Promise<"freed"> {
    this.#origins.forget(token);
    return "freed";
  }
}

function toRefusal(token: string): TensordError {
  return new TensordError(
    "storage-unavailable",
    `Cannot hand out ${toRegionId(token)}: it is a file that its readers open by themselves`,
    { hint: "Let this process read the file at the region's path, or load it in mode copy." },
  );
}

class FileNames implements Names {
  readonly lossCause = "removed";
  readonly #origins: Origins;

  constructor(origins: Origins) {
    this.#origins = origins;
  }

  keep(token: string): void {
    this.#origins.shm.translated(() => renameSync(this.#origins.newPath(token), this.#origins.keptPath(token)));
  }

  kept(): readonly KeptFile[] {
    return this.#origins.readKept().map(([token, origin]) => ({
      token,
      identity: this.#origins.identityOf(token),
      byteSize: origin?.byteSize ?? 0,
      access: "sealed",
    }));
  }

  address(token: string): Address {
    const origin = this.#origins.of(token);
    return { path: origin === undefined ? null : toPath(origin), shmName: null };
  }

  publish(): void {}

  isPublished(): undefined {}

  withdraw(): void {}

  inspect(token: string): NameState {
    if (!this.#origins.has(token)) return "lost";
    return this.#origins.look(token) ? "changed" : "intact";
  }

  settle(token: string): void {
    this.#origins.settle(token);
  }
}

class FileOrigins implements OriginAccess {
  readonly #origins: Origins;

  constructor(origins: Origins) {
    this.#origins = origins;
  }

  get withheld(): Withheld | null {
    const reason = "This server is told of no files (TENSORD_MODEL_ROOTS).";
    return this.#origins.roots.length === 0 ? { isForNow: false, reason } : null;
  }

  bind(token: string, origin: Origin): Identity {
    this.#origins.bind(token, origin);
    return this.#origins.identityOf(token);
  }

  get tokens(): Iterable<string> {
    return this.#origins.tokens;
  }

  mtimeNs(token: string): string | null {
    return this.#origins.of(token)?.mtimeNs ?? null;
  }

  changeOf(token: string): FileChange | null {
    return this.#origins.changeOf(token);
  }
}

/** Without locks: whose they would be on a file of somebody else's nobody knows. */
class OriginBytes extends FileBytes {
  readonly #origins: Origins;

  constructor(origins: Origins, lane: ConstructorParameters<typeof FileBytes>[1]) {
    super(origins, lane);
    this.#origins = origins;
  }

  protected override toDataFile(token: string, ...[fd, , translate]: ConstructorParameters<typeof DataFile>): DataFile {
    return new OriginFile(this.#origins, token, fd, translate);
  }
}

class OriginFile extends DataFile {
  readonly #origins: Origins;
  readonly #token: string;

  constructor(origins: Origins, token: string, fd: number, translate: (error: unknown) => unknown) {
    super(fd, null, translate);
    this.#origins = origins;
    this.#token = token;
  }

  /** @throws TensordError `io-error` if the file is not what it was. */
  override get byteSize(): number {
    return this.#origins.sizeOf(this.#token, this.fd);
  }
}
