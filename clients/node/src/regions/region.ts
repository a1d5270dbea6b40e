/** A mapped region: its tensors, its seal, its end in this process. */

import type { SealOptions } from "../options.ts";
import "../dispose.ts";
import { inspect } from "node:util";
import * as kinds from "../check/kinds.ts";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { checkArgument } from "../check/value.ts";
import { TensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import { type RegionDescriptor, type Residency, shown, type TensorInfo } from "../http/wire.ts";
import type { Attachment } from "../memory/attachment.ts";
import { lockMemory, type MemoryLock } from "../memory/memory-lock.ts";
import type { AttachedBy } from "../memory/open.ts";
import { type Advice, advisePages, residentBytes } from "../memory/page-advice.ts";
import type { WaitOptions } from "../waiting.ts";
import { RegionView, sealViews } from "./region-view.ts";
import { whileStanding } from "./standing.ts";
import { shownAlias, Tensor } from "./tensor.ts";

/** How many tensors a message or `console.log` shows. */
const shownTensorCount = 8;
const advices = ["normal", "sequential", "random", "willneed", "dontneed"] as const satisfies readonly Advice[];

/** Set by the class, whose private fields nothing else reaches. */
let toView: (region: Region) => RegionView;

/**
 * A region that this process maps. Made by `create` and `attach`; close it, or declare it with `using`. Closing it lets go
 * of the memory here and changes nothing for others: whoever owns the region (a TTL, persist) decides its end. Arrays taken
 * before stay valid, and keep the pages and the lease, until they are collected.
 */
export class Region {
  readonly #view: RegionView;
  readonly #isCreated: boolean;
  readonly #memoryLocks = new Set<MemoryLock>();
  /** All tensors by name, in the region's order. They need no closing. */
  readonly tensors: ReadonlyMap<string, Tensor>;

  static {
    toView = (region) => region.#view;
  }

  constructor(api: Api, descriptor: RegionDescriptor, attachment: Attachment, isCreated: boolean) {
    this.#view = new RegionView(api, descriptor, attachment);
    this.#isCreated = isCreated;
    const infos = new Map(descriptor.tensors.map((info) => [info.name, info]));
    const targetOf = ({ aliasOf }: TensorInfo) => (aliasOf === null ? undefined : infos.get(aliasOf));
    this.tensors = new Map(descriptor.tensors.map((info) => [info.name, new Tensor(attachment, info, targetOf(info))]));
  }

  get id(): string {
    return this.#view.descriptor.id;
  }

  get name(): string | null {
    return this.#view.descriptor.name;
  }

  /** Which build of the name; empty unless its maker said one. */
  get version(): string {
    return this.#view.descriptor.version;
  }

  get model(): string {
    return this.#view.descriptor.model;
  }

  /** The state when the server was last asked: at attach, `seal` or `refresh`. */
  get state(): RegionDescriptor["state"] {
    return this.#view.descriptor.state;
  }

  /** What the server said when it was last asked. */
  get descriptor(): RegionDescriptor {
    return this.#view.descriptor;
  }

  /**
   * Whether this call made the region; false if it was found, by `attach`, by `getOrCreate`, or through `ifExists: "attach"`:
   * `ageMs` says how old it is then.
   */
  get isCreated(): boolean {
    return this.#isCreated;
  }

  /** When it was made, by whomever: RFC 3339, as the descriptor has it. */
  get createdAt(): string {
    return this.#view.descriptor.createdAt;
  }

  /** How long ago it was made, by this machine's clock, which is the server's as well. */
  get ageMs(): number {
    return Math.max(0, Date.now() - Date.parse(this.createdAt));
  }

  /** Whether writes here reach the other processes. False once it was sealed through this object. */
  get isWritable(): boolean {
    return this.#view.attachment.access === "write";
  }

  /**
   * How this process reached its file: by its name, or by a descriptor from the server's broker, where the name cannot be
   * reached (another mount namespace, another user) or there is none (`private`, `memfd`). The memory is the same. Of `heap` storage, which
   * no process maps, it is a `"copy"`: memory of this process, downloaded once, or uploaded by the seal.
   */
  get attachedBy(): AttachedBy {
    return this.#view.attachment.attachedBy;
  }

  get isClosed(): boolean {
    return this.#view.attachment.isClosed;
  }

  /** The tensor of that name, or the only one. @throws TensordError `tensor-not-found` */
  tensor(name?: string): Tensor {
    if (name !== undefined) checkArgument("find a tensor", "its name", name, kinds.text);
    const [only] = this.tensors.size === 1 ? this.tensors.values() : [];
    const found = name === undefined ? only : this.tensors.get(name);
    if (found !== undefined) return found;
    const names = [...this.tensors.keys()];
    const what = name === undefined ? `the only tensor of` : `tensor "${name}" in`;
    const shownNames = names.slice(0, shownTensorCount).map((each) => JSON.stringify(each));
    const more = names.length > shownNames.length ? ` and ${names.length - shownNames.length} more` : "";
    throw new TensordError("tensor-not-found", `Cannot find ${what} ${shown(this.#view.descriptor)}`, {
      hint: `it has ${shownNames.join(", ") || "none"}${more}`,
    });
  }

  /**
   * Makes the region final for everybody, and this process's view of it read-only, in place: every array stays valid at its
   * address, and a write through one stays in this process's private pages from then on. **All writing here must have
   * stopped before.**
   *
   * With `ifMatch` only a region of that revision. If it fails, the view is writable again and the region open. If an answer was lost and the file is sealed already, the
   * view stays read-only. After an abort the region is as `refresh` says.
   * @throws TensordError `region-has-writers` while another process, or another `Region` of this one, maps it for writing;
   *   `revision-mismatch`, `region-sealed`, `closed`, `server-unavailable`
   */
  async seal(options: SealOptions = {}): Promise<RegionDescriptor> {
    checkOptions("seal the region", tables.seal, options);
    const { checksum = false, stockWritable = false, ...sending } = options;
    const view = this.#view;
    const seal = () => view.api.seal(this.id, { checksum, stockWritable }, sending);
    view.descriptor = await sealViews([view], seal, options.signal);
    return view.descriptor;
  }

  /**
   * Locks the region's pages in memory, out of swap, until the lock is released or the region closed here. Nothing is copied,
   * whatever views there are; `mlock` of a view copies all of it.
   * @throws TensordError `mapping-failed` if this process may not lock as much, `stale-ref` if the region was deleted,
   *   `closed`
   */
  async lockMemory(options: WaitOptions = {}): Promise<MemoryLock> {
    checkOptions("lock the region in memory", tables.wait, options);
    this.#view.attachment.check();
    const { place } = this.#view.attachment;
    const lock = await whileStanding(place, () => lockMemory(place, options.signal));
    if (this.isClosed) lock.release();
    this.#view.attachment.check();
    for (const each of this.#memoryLocks) if (each.isReleased) this.#memoryLocks.delete(each);
    this.#memoryLocks.add(lock);
    return lock;
  }

  /**
   * Tells the kernel what comes. `"sequential"`, `"random"` and `"normal"` say in which order this process reads what it maps, and
   * resolve to undefined. `"willneed"` has the kernel read the region's file ahead. `"dontneed"` lets go of the pages here, and then of
   * the kernel's copy of the file, as far as no other process maps that: the next read brings them back. Of regions in memory, which is
   * the only copy of their bytes, nothing is let go of.
   * @returns how much was in memory, and is
   * @throws TensordError `validation-failed` where pages were written to privately, which would be lost; `mapping-failed`, `closed`,
   *   `region-draining`, `storage-unavailable`, `forbidden`
   */
  async advise(advice: Advice, options: WaitOptions = {}): Promise<Residency | undefined> {
    checkArgument("advise the kernel", "the advice", advice, kinds.oneOf(...advices));
    checkOptions("advise the kernel", tables.wait, options);
    advisePages(this.#view.attachment, advice);
    if (advice !== "willneed" && advice !== "dontneed") return undefined;
    return await this.#view.api.advise(this.id, advice, options.signal);
  }

  /**
   * How many bytes of what is mapped here are in memory, by pages; null where the kernel does not tell this process, which neither
   * owns the file nor may write to it.
   * @throws TensordError `mapping-failed`, `closed`
   */
  residentBytes(): number | null {
    return residentBytes(this.#view.attachment);
  }

  /**
   * Brings what was written to the region to the disk that its file is on. Others see what is written without it.
   * @returns whether it is there without power: of memory it is not, and nothing is done
   * @throws TensordError `io-error`, `region-draining`, `forbidden`
   */
  async flush(options: WaitOptions = {}): Promise<boolean> {
    checkOptions("flush the region", tables.wait, options);
    return (await this.#view.api.flush(this.id, options.signal)).durable;
  }

  /** Asks the server for the region as it is now. */
  async refresh(options: WaitOptions = {}): Promise<RegionDescriptor> {
    checkOptions("refresh the region", tables.wait, options);
    this.#view.descriptor = await this.#view.api.region(this.id, options.signal);
    return this.#view.descriptor;
  }

  /** Lets go of the region here. Safe to call twice. Arrays taken before stay valid. */
  close(): void {
    for (const lock of this.#memoryLocks) lock.release();
    this.#memoryLocks.clear();
    this.#view.attachment.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it, with its tensors' dtypes and shapes. */
  [inspect.custom](): string {
    const { tensors } = this.#view.descriptor;
    const shownTensors = tensors.slice(0, shownTensorCount).map(({ name, dtype, shape, aliasOf }) => {
      return `${JSON.stringify(name)}: ${dtype} [${shape.join(", ")}]${aliasOf === null ? "" : shownAlias(aliasOf)}`;
    });
    const more = tensors.length > shownTensorCount ? [`and ${tensors.length - shownTensorCount} more`] : [];
    const states = [this.state, ...(this.isClosed ? ["closed here"] : this.isWritable ? ["writable"] : [])];
    if (this.attachedBy !== "name") states.push(this.attachedBy === "copy" ? "a copy" : "by descriptor");
    return `Region ${shown(this.#view.descriptor)}, ${states.join(", ")} { ${[...shownTensors, ...more].join(", ")} }`;
  }
}

/** Its view, for seals of groups alone. */
export function viewOf(region: Region): RegionView {
  return toView(region);
}
