/**
 * The descriptors of regions that have no name, by token: what there is of such a region is what its descriptor holds. How
 * large it is, and which form of storage made it, stands in its name, which the kernel shows and nobody can change.
 */

import { closeSync, constants, fchmodSync, ftruncateSync, readlinkSync, statfsSync } from "node:fs";
import { roundUpToPage } from "../../host/capacity.ts";
import { limits } from "../../limits.ts";
import { tokenPattern } from "../../naming.ts";
import { outOfDescriptors, type Stay, withSpare } from "../../os/descriptors.ts";
import { openFile } from "../../os/files.ts";
import { readDescriptorLimit } from "../../os/libc.ts";
import { addSeals, createMemfd } from "../../os/libc-memory.ts";
import { privateModes } from "../access-modes.ts";
import type { FdHolder } from "../fd-holder/fd-holder.ts";
import {
  type DeviceForm,
  type HugePage,
  hugePageBytes,
  isDeviceForm,
  type StorageForm,
  toDeviceForm,
  toDeviceUuid,
  toHugePage,
} from "../storage.ts";

const { O_RDONLY, O_RDWR } = constants;

/** One region's memory, for as long as its descriptor is open. */
export interface Memfd {
  readonly fd: number;
  /** What was asked for. Of huge pages the file is larger: it is whole pages. */
  readonly byteSize: number;
  readonly form: StorageForm;
  isKept: boolean;
}

export class Memfds implements Disposable {
  readonly #instance: string;
  /** Who has a copy of each while no server runs; undefined if they end with this one. */
  readonly holder: FdHolder | undefined;
  /** What else is kept, by what the fd holder calls it: of devices, or of a later version. */
  readonly #others = new Map<string, number>();
  readonly #byToken = new Map<string, Memfd>();

  private constructor(instance: string, holder: FdHolder | undefined) {
    this.#instance = instance;
    this.holder = holder;
  }

  /** Takes over all that `holder` has of an earlier server of the instance. */
  static async open(instance: string, holder?: FdHolder): Promise<Memfds> {
    const memfds = new Memfds(instance, holder);
    try {
      for (const token of (await holder?.list()) ?? []) memfds.#enter(token, await holder?.give(token));
      return memfds;
    } catch (error) {
      memfds[Symbol.dispose]();
      throw error;
    }
  }

  #enter(token: string, fd: number | undefined): void {
    if (fd === undefined) return;
    const named = tokenPattern.test(token) ? parseName(readlinkSync(`/proc/self/fd/${fd}`)) : undefined;
    // It stays kept, whoever it is for, and may be given again.
    if (named === undefined) this.#others.set(token, fd);
    else this.#byToken.set(token, { fd, ...named, isKept: true });
  }

  /** Of this form of storage. */
  *of(form: StorageForm): Iterable<readonly [string, Memfd]> {
    for (const entry of this.#byToken) if (entry[1].form === form) yield entry;
  }

  /** Those of devices that there are regions of. */
  get deviceForms(): ReadonlySet<DeviceForm> {
    return new Set([...this.#byToken.values()].flatMap(({ form }) => (isDeviceForm(form) ? [form] : [])));
  }

  find(token: string): Memfd | undefined {
    return this.#byToken.get(token);
  }

  /**
   * Makes a memfd of `byteSize` bytes without a page yet, which can neither shrink nor grow from its birth.
   * @throws SystemError as the kernel refuses it, TensordError `out-of-descriptors` if connections need the rest of them.
   */
  create(token: string, byteSize: number, form: StorageForm): Memfd {
    const hugePage = toHugePage(form);
    const fileBytes = hugePage === null ? byteSize : roundUpToPage(byteSize, hugePageBytes[hugePage]);
    return this.#create(token, byteSize, form, fileBytes);
  }

  /**
   * Makes a *lease file*: a memfd without a byte, which stands for a region of `byteSize` bytes on a device and carries the locks of
   * those who map it. @throws as `create`.
   */
  createLeaseFile(token: string, byteSize: number, form: DeviceForm): Memfd {
    return this.#create(token, byteSize, form, 0);
  }

  #create(token: string, byteSize: number, form: StorageForm, fileBytes: number): Memfd {
    const { soft } = readDescriptorLimit();
    const most = (soft * BigInt(limits.memfdDescriptorsPercent)) / 100n;
    if (BigInt(this.#byToken.size) >= most) {
      throw outOfDescriptors(`Cannot make a region without a name: ${this.#byToken.size} have a descriptor each`);
    }
    const name = `tensord.${this.#instance}.${token}.${byteSize}.${form}`;
    const hugePage = toHugePage(form);
    const fd = withSpare(() => createMemfd(name, hugePage === null ? undefined : hugePageBytes[hugePage]), "long");
    try {
      fchmodSync(fd, privateModes.open);
      ftruncateSync(fd, fileBytes);
      addSeals(fd, "shrink", "grow");
      const memfd = { fd, byteSize, form, isKept: false };
      this.#byToken.set(token, memfd);
      return memfd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** What else the fd holder keeps, by what it is called there. */
  get others(): readonly string[] {
    return [...this.#others.keys()];
  }

  /** Its descriptor, which stays open until it is taken. */
  findOther(name: string): number | undefined {
    return this.#others.get(name);
  }

  /** From here on `fd` is closed here, unless it is taken. */
  addOther(name: string, fd: number): void {
    this.#others.set(name, fd);
  }

  /** From here on its descriptor is the caller's to close. */
  takeOther(name: string): number | undefined {
    const fd = this.#others.get(name);
    this.#others.delete(name);
    return fd;
  }

  /** An open file description of its own, for whoever reads or writes. The caller closes it. */
  open({ fd }: Memfd, access: "read" | "write", stay: Stay): number {
    return openFile(`/proc/self/fd/${fd}`, access === "write" ? O_RDWR : O_RDONLY, undefined, stay);
  }

  /** From here on the descriptor is the caller's to close, and the region has no memory. */
  take(token: string): Memfd | undefined {
    const memfd = this.#byToken.get(token);
    this.#byToken.delete(token);
    return memfd;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#byToken.values()) closeSync(fd);
    for (const fd of this.#others.values()) closeSync(fd);
    this.#byToken.clear();
    this.#others.clear();
  }
}

/** What the name of a memfd says, as /proc shows that; undefined if it is none of ours. */
function parseName(shown: string): Pick<Memfd, "byteSize" | "form"> | undefined {
  const found = /^\/memfd:tensord\.[a-z0-9-]+\.[a-z2-7]{26}\.(\d+)\.([\w-]+) \(deleted\)$/.exec(shown);
  const [, byteSize, word] = found ?? [];
  const form = forms.find((known) => known === word) ?? parseDeviceForm(word);
  return form === undefined ? undefined : { byteSize: Number(byteSize), form };
}

function parseDeviceForm(word: string | undefined): DeviceForm | undefined {
  return word !== undefined && isDeviceForm(word) ? toDeviceForm(toDeviceUuid(word)) : undefined;
}

const forms: readonly StorageForm[] = [
  "memfd",
  "heap",
  ...(Object.keys(hugePageBytes) as HugePage[]).map((page) => `memfd-${page}` as const),
];

/** What statfs calls a block of such a file is a page. */
export function pageSizeOf(fd: number): number {
  return statfsSync(`/proc/self/fd/${fd}`).bsize;
}
