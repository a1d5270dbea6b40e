/**
 * A region as this process maps it: its descriptor, its mapping, and how a seal gives up writing through it and takes it back.
 * `Region` is its face.
 */

import { TensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import { isHandOff, type RegionDescriptor, shown } from "../http/wire.ts";
import { Mismatch } from "../memory/attach.ts";
import type { Attachment } from "../memory/attachment.ts";
import { openFile } from "../memory/open.ts";
import type { Access } from "../memory/pages.ts";
import { orAborted } from "../waiting.ts";
import { finish, upload, wasSealed } from "./heap.ts";
import { sameRegionTries } from "./mapper.ts";

export class RegionView {
  readonly api: Api;
  readonly attachment: Attachment;
  #descriptor: RegionDescriptor;
  /** The last seal, which the next one waits for. */
  sealing: Promise<unknown> = Promise.resolve();

  constructor(api: Api, descriptor: RegionDescriptor, attachment: Attachment) {
    this.api = api;
    this.attachment = attachment;
    this.#descriptor = descriptor;
    this.descriptor = descriptor;
  }

  /** What the server said when it was last asked. */
  get descriptor(): RegionDescriptor {
    return this.#descriptor;
  }

  set descriptor(descriptor: RegionDescriptor) {
    this.#descriptor = descriptor;
    this.attachment.isOpenHandOff = isHandOff(descriptor) && descriptor.state === "open";
  }

  async remap(access: Access): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        this.attachment.check();
        const opening = { isWriter: access === "write", isLeased: true };
        const place = tries === 1 ? this.attachment.place : { ...this.attachment.place, isSure: true };
        return this.attachment.remap(await openFile(place, opening), access);
      } catch (error) {
        if (!(error instanceof Mismatch)) throw error;
        if (error.difference !== "other" || tries === sameRegionTries) throw error.toError();
        // Somebody unlinked the public name; when it is asked about a region, the server links it back.
        this.descriptor = await this.api.region(this.descriptor.id);
        const { state } = this.descriptor;
        if (state === "draining" || state === "deleted") {
          const detail = `Cannot seal ${shown(this.descriptor)}: it was deleted`;
          throw new TensordError("region-draining", detail, { cause: error });
        }
      }
    }
  }

  /** @returns what to throw: the seal's own error, which says so if writing is over. */
  async resumeWriting(sealError: unknown): Promise<unknown> {
    try {
      await this.remap("write");
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

/**
 * Calls `seal` while none of the views, of which each is there once, is for writing; after every seal of any of them that was
 * asked for before. If it fails, those that were are for writing again.
 */
export function sealViews<Result>(
  views: readonly RegionView[],
  seal: () => Promise<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  const before = Promise.all(views.map(({ sealing }) => sealing));
  const sealed = orAborted(before, signal).then(() => sealNow(views, seal, signal));
  const over = Promise.allSettled([before, sealed]);
  for (const view of views) view.sealing = over;
  return sealed;
}

async function sealNow<Result>(
  views: readonly RegionView[],
  seal: () => Promise<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  for (const { attachment } of views) attachment.check();
  const written = views.filter(({ attachment }) => attachment.access === "write");
  try {
    // The seal is refused while anybody maps a region for writing, and that is us.
    for (const view of written) await view.remap("private");
    for (const view of written) await upload(view, signal);
    const sealed = await seal();
    for (const view of written) finish(view);
    return sealed;
  } catch (error) {
    let failure = error;
    for (const view of written) {
      if (view.attachment.access === "write" || (await wasSealed(view))) continue;
      failure = await view.resumeWriting(failure);
    }
    throw failure;
  }
}
