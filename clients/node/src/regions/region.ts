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
import { type RegionDescriptor, shown, type TensorInfo } from "../http/wire.ts";
import { Mismatch } from "../memory/attach.ts";
import type { Attachment } from "../memory/attachment.ts";
import { lockMemory, type MemoryLock } from "../memory/memory-lock.ts";
import type { Access } from "../memory/pages.ts";
import { orAborted, type WaitOptions } from "../waiting.ts";
import { sameRegionTries } from "./mapper.ts";
import { whileStanding } from "./standing.ts";
import { shownAlias, Tensor } from "./tensor.ts";

/** How many tensors a message or `console.log` shows. */
const shownTensorCount = 8;

/**
 * A region that this process maps. Made by `create` and `attach`; close it, or declare it with `using`. Closing it lets go
 * of the memory here and changes nothing for others: whoever owns the region (a TTL, persist) decides its end. Arrays taken
 * before stay valid, and keep the pages and the lease, until they are collected.
 */
export class Region {
  readonly #api: Api;
  readonly #attachment: Attachment;
  readonly #isCreated: boolean;
  readonly #memoryLocks = new Set<MemoryLock>();
  #descriptor: RegionDescriptor;
  /** The last seal, which the next one waits for. */
  #sealing: Promise<unknown> = Promise.resolve();
  /** All tensors by name, in the region's order. They need no closing. */
  readonly tensors: ReadonlyMap<string, Tensor>;

  constructor(api: Api, descriptor: RegionDescriptor, attachment: Attachment, isCreated: boolean) {
    this.#api = api;
    this.#attachment = attachment;
    this.#isCreated = isCreated;
    this.#descriptor = descriptor;
    const infos = new Map(descriptor.tensors.map((info) => [info.name, info]));
    const targetOf = ({ aliasOf }: TensorInfo) => (aliasOf === null ? undefined : infos.get(aliasOf));
    this.tensors = new Map(descriptor.tensors.map((info) => [info.name, new Tensor(attachment, info, targetOf(info))]));
  }

  get id(): string {
    return this.#descriptor.id;
  }

  get name(): string | null {
    return this.#descriptor.name;
  }

  /** Which build of the name; empty unless its maker said one. */
  get version(): string {
    return this.#descriptor.version;
  }

  get model(): string {
    return this.#descriptor.model;
  }

  /** The state when the server was last asked: at attach, `seal` or `refresh`. */
  get state(): RegionDescriptor["state"] {
    return this.#descriptor.state;
  }

  /** What the server said when it was last asked. */
  get descriptor(): RegionDescriptor {
    return this.#descriptor;
  }

  /** Whether this call made the region; false if it was attached, also through `ifExists: "attach"`. */
  get isCreated(): boolean {
    return this.#isCreated;
  }

  /** Whether writes here reach the other processes. False once it was sealed through this object. */
  get isWritable(): boolean {
    return this.#attachment.access === "write";
  }

  get isClosed(): boolean {
    return this.#attachment.isClosed;
  }

  /** The tensor of that name, or the only one. @throws TensordError `tensor-not-found` */
  tensor(name?: string): Tensor {
    if (name !== undefined) checkArgument("find a tensor", "its name", name, kinds.text);
    const names = [...this.tensors.keys()];
    const found = name === undefined && names.length !== 1 ? undefined : this.tensors.get(name ?? names[0] ?? "");
    if (found !== undefined) return found;
    const what = name === undefined ? `the only tensor of` : `tensor "${name}" in`;
    const shownNames = names.slice(0, shownTensorCount).map((each) => JSON.stringify(each));
    const more = names.length > shownNames.length ? ` and ${names.length - shownNames.length} more` : "";
    throw new TensordError("tensor-not-found", `Cannot find ${what} ${shown(this.#descriptor)}`, {
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
    const sealing = orAborted(this.#sealing, options.signal).then(() => this.#seal(options));
    this.#sealing = Promise.allSettled([this.#sealing, sealing]);
    return sealing;
  }

  async #seal({ checksum = false, stockWritable = false, ...sending }: SealOptions): Promise<RegionDescriptor> {
    this.#attachment.check();
    const hasWritten = this.#attachment.access === "write";
    try {
      // The seal is refused while anybody maps the region for writing, and that is us.
      if (hasWritten) await this.#remap("private");
      this.#descriptor = await this.#api.seal(this.id, { checksum, stockWritable }, sending);
      return this.#descriptor;
    } catch (error) {
      throw hasWritten && this.#attachment.access !== "write" ? await this.#resumeWriting(error) : error;
    }
  }

  /**
   * Locks the region's pages in memory, out of swap, until the lock is released or the region closed here. Nothing is copied,
   * whatever views there are; `mlock` of a view copies all of it.
   * @throws TensordError `mapping-failed` if this process may not lock as much, `stale-ref` if the region was deleted,
   *   `closed`
   */
  async lockMemory(options: WaitOptions = {}): Promise<MemoryLock> {
    checkOptions("lock the region in memory", tables.wait, options);
    this.#attachment.check();
    const { place } = this.#attachment;
    const lock = await whileStanding(place, () => lockMemory(place, options.signal));
    if (this.isClosed) lock.release();
    this.#attachment.check();
    for (const each of this.#memoryLocks) if (each.isReleased) this.#memoryLocks.delete(each);
    this.#memoryLocks.add(lock);
    return lock;
  }

  /** Asks the server for the region as it is now. */
  async refresh(options: WaitOptions = {}): Promise<RegionDescriptor> {
    checkOptions("refresh the region", tables.wait, options);
    this.#descriptor = await this.#api.region(this.id, options.signal);
    return this.#descriptor;
  }

  /** Lets go of the region here. Safe to call twice. Arrays taken before stay valid. */
  close(): void {
    for (const lock of this.#memoryLocks) lock.release();
    this.#memoryLocks.clear();
    this.#attachment.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it, with its tensors' dtypes and shapes. */
  [inspect.custom](): string {
    const { tensors } = this.#descriptor;
    const shownTensors = tensors.slice(0, shownTensorCount).map(({ name, dtype, shape, aliasOf }) => {
      return `${JSON.stringify(name)}: ${dtype} [${shape.join(", ")}]${aliasOf === null ? "" : shownAlias(aliasOf)}`;
    });
    const more = tensors.length > shownTensorCount ? [`and ${tensors.length - shownTensorCount} more`] : [];
    const states = [this.state, ...(this.isClosed ? ["closed here"] : this.isWritable ? ["writable"] : [])];
    return `Region ${shown(this.#descriptor)}, ${states.join(", ")} { ${[...shownTensors, ...more].join(", ")} }`;
  }

  async #remap(access: Access): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return this.#attachment.remap(access);
      } catch (error) {
        if (!(error instanceof Mismatch)) throw error;
        if (error.difference !== "other" || tries === sameRegionTries) throw error.toError();
        // Somebody unlinked the public name; when it is asked about a region, the server links it back.
        const { state } = await this.refresh();
        if (state === "draining" || state === "deleted") {
          const detail = `Cannot seal ${shown(this.#descriptor)}: it was deleted`;
          throw new TensordError("region-draining", detail, { cause: error });
        }
      }
    }
  }

  /** @returns what to throw: the seal's own error, which says so if writing is over. */
  async #resumeWriting(sealError: unknown): Promise<unknown> {
    try {
      await this.#remap("write");
      return sealError;
    } catch (error) {
      if (!(error instanceof TensordError && sealError instanceof TensordError)) return sealError;
      const remark = `the arrays stay read-only, since the region cannot be mapped for writing again: ${error.message}`;
      const { code, detail, status, hint, fields } = sealError;
      return new TensordError(code, detail, {
        status,
        hint: hint === undefined ? remark : `${hint}; ${remark}`,
        fields: { ...fields, isWritable: false },
        cause: sealError,
      });
    }
  }
}
