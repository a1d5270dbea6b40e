/**
 * From a region's descriptor to its memory: waits for it, maps it, and asks again when what it sees is not what it was
 * told. The protocol with the kernel is `attach.ts`'s; the routes are `api.ts`'s.
 */

import { isTensordError, TensordError } from "../errors.ts";
import type { Api, NamedRegion } from "../http/api.ts";
import { type RegionDescriptor, shown } from "../http/wire.ts";
import { Mismatch } from "../memory/attach.ts";
import { Attachment } from "../memory/attachment.ts";
import type { Access } from "../memory/pages.ts";
import type { AccessOptions } from "../options.ts";
import { deadlineAfter, pause, type WaitOptions } from "../waiting.ts";
import { newerHint } from "./reference.ts";
import { standingAt } from "./standing.ts";

/** A stock reader may unlink the name that the server has just brought back; not four times in a row. */
export const sameRegionTries = 4;
/** A name may have a new region whenever it is asked for, but some answer is in time. */
const attachTries = 100;
/** How often to look where the server does not hold its answer back: for a writer, and within the last second. */
const pollMs = 50;

/** The access that two flags ask for. @throws TensordError `validation-failed` if they contradict each other */
export function toAccess({ writable = false, strict = false }: AccessOptions): Access {
  if (writable && strict) {
    throw new TensordError("validation-failed", "Cannot map with writable and strict: strict forbids writing");
  }
  if (writable) return "write";
  return strict ? "strict" : "private";
}

/** For how long a region is looked for, and whether to write into it. */
export interface Finding extends WaitOptions {
  readonly timeoutMs: number;
  readonly isWriter: boolean;
}

/**
 * The region of that name. With a timeout it waits: for a reader until it is sealed, for a writer until it is there.
 * @throws TensordError `region-not-found`, or `region-not-sealed` if it is still open when the time is over
 */
export async function findRegion(
  api: Api,
  named: NamedRegion,
  { timeoutMs, isWriter, signal }: Finding,
): Promise<RegionDescriptor> {
  const deadline = deadlineAfter(timeoutMs);
  if (timeoutMs === 0) return api.regionByName(named, { signal });
  for (;;) {
    const askedAt = performance.now();
    const waitUntil = isWriter ? undefined : deadline;
    const found = await api.regionByName(named, { signal, waitUntil }).catch(toMissing);
    if (!(found instanceof Error) && (found.state === "sealed" || (isWriter && found.state === "open"))) return found;
    const now = performance.now();
    if (now >= deadline) {
      if (found instanceof Error) throw found;
      throw new TensordError(
        "region-not-sealed",
        `Cannot attach ${shown(found)}: it is still ${found.state} after ${timeoutMs} ms, want sealed`,
        {
          hint: "timeoutMs: 0 maps it as it is, and shows what its writer has written so far",
          fields: { region: found.id, state: found.state },
        },
      );
    }
    if (now - askedAt < pollMs) await pause(Math.min(pollMs, deadline - now), { signal });
  }
}

function toMissing(error: unknown): TensordError {
  if (isTensordError(error) && ["region-not-found", "model-not-found"].includes(error.code)) return error;
  throw error;
}

/** A region as the descriptor says that led to its memory. */
export interface MappedRegion {
  readonly region: RegionDescriptor;
  readonly attachment: Attachment;
}

/**
 * Maps all of a region. `ask` gets its descriptor anew when the file is not what the last one said, `choose` the access for
 * each one. @throws TensordError `wrong-namespace`, `stale-ref` if the server insists on what this process cannot see
 */
export async function mapRegion(
  api: Api,
  first: RegionDescriptor,
  ask: () => Promise<RegionDescriptor>,
  choose: (region: RegionDescriptor) => Access,
): Promise<MappedRegion> {
  let region = first;
  let same = 0;
  for (let tries = 1; ; tries++) {
    const access = choose(region);
    const path = toPath(region, access);
    const { dev, ino, byteSize } = region.storage;
    try {
      const place = standingAt(api, { region: region.id, path, dev, ino, byteSize });
      return { region, attachment: new Attachment(place, 0, byteSize, access) };
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error;
      const answer = await ask();
      const isSame = answer.storage.path === path && answer.storage.dev === dev && answer.storage.ino === ino;
      same = isSame ? same + 1 : 0;
      if (same === sameRegionTries || tries === attachTries) {
        throw error.difference === "sealed" ? busy(answer) : error.toError();
      }
      region = answer;
    }
  }
}

/** The file to map, of a region that stands. */
function toPath(region: RegionDescriptor, access: Access): string {
  const { state, storage } = region;
  if (storage.kind !== "shm" || storage.path === null) {
    const detail = `Cannot map ${shown(region)}: its storage is ${storage.kind}, want shm`;
    throw new TensordError("feature-unavailable", detail, { hint: newerHint });
  }
  if (state === "draining" || state === "deleted") {
    throw new TensordError("region-draining", `Cannot attach ${shown(region)}: it is ${state}`, {
      hint: "it was deleted",
    });
  }
  if (access === "write" && state === "sealed") {
    throw new TensordError("region-sealed", `Cannot write to ${shown(region)}: it is sealed`, {
      hint: "attach it without writable",
    });
  }
  if (state === "creating" || (access === "write" && state === "sealing")) throw busy(region);
  return storage.path;
}

function busy(region: RegionDescriptor): TensordError {
  const detail = `Cannot attach ${shown(region)}: it is ${region.state}, in the middle of a step`;
  return new TensordError("region-busy", detail, { hint: "try again in a moment" });
}
