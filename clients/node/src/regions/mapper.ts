/**
 * From a region's descriptor to its memory: waits for it, maps it, and asks again when what it sees is not what it was
 * told. The protocol with the kernel is `attach.ts`'s; the routes are `api.ts`'s.
 */

import { isTensordError, TensordError } from "../errors.ts";
import type { Api, NamedRegion } from "../http/api.ts";
import { isMappable, type RegionDescriptor, shown } from "../http/wire.ts";
import { Mismatch } from "../memory/attach.ts";
import type { Attachment } from "../memory/attachment.ts";
import { isOrigin } from "../memory/origin-file.ts";
import type { Access } from "../memory/pages.ts";
import type { AccessOptions } from "../options.ts";
import { deadlineAfter, pause, type WaitOptions } from "../waiting.ts";
import type { Asker } from "./asker.ts";
import { getCopy, isHeap, makeLocal } from "./heap.ts";
import { mapKept } from "./keep.ts";
import { unmappableHint } from "./reference.ts";
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
  const ask: Ask = async (waitUntil) => [await api.regionByName(named, { signal, waitUntil, isToMap: true })];
  const [region] = await findRegions(ask, { timeoutMs, isWriter, signal });
  return region as RegionDescriptor;
}

/** Gets descriptors, all as they are at once; its argument is until when the answer may be held back. */
export type Ask = (waitUntil: number | undefined) => Promise<readonly RegionDescriptor[]>;

/** As `findRegion`, of one region or of a group. */
export async function findRegions(
  ask: Ask,
  { timeoutMs, isWriter, signal }: Finding,
): Promise<readonly RegionDescriptor[]> {
  const deadline = deadlineAfter(timeoutMs);
  if (timeoutMs === 0) return ask(undefined);
  const isReady = ({ state }: RegionDescriptor) => state === "sealed" || (isWriter && state === "open");
  for (;;) {
    const askedAt = performance.now();
    const all = await ask(isWriter ? undefined : deadline).catch(toMissing);
    const found = all instanceof Error ? all : all.find((region) => !isReady(region));
    if (found === undefined) return all as readonly RegionDescriptor[];
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

export interface Mapping {
  /** Gets the descriptors anew when a file is not what the last ones said. */
  readonly ask: () => Promise<readonly RegionDescriptor[]>;
  /** The access for each descriptor. */
  readonly choose: (region: RegionDescriptor) => Access;
  /** Whether this process is its maker. */
  readonly isMaker?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Maps all of one region, or of each of a group. Where a file is not what its descriptor said, all that were mapped are let
 * go: what comes back is one answer's.
 * @throws TensordError `wrong-namespace`, `stale-ref` if the server insists on what this process cannot see
 */
export async function mapRegions(
  asker: Asker,
  first: readonly RegionDescriptor[],
  { ask, choose, isMaker = false, signal }: Mapping,
): Promise<readonly MappedRegion[]> {
  return mapAnew(first, ask, async (regions, isSure) => {
    const mapped: MappedRegion[] = [];
    try {
      for (const region of regions) {
        const mapping = { access: choose(region), isMaker, isSure, signal };
        mapped.push({ region, attachment: await mapAllOf(asker, region, mapping) });
      }
      return mapped;
    } catch (error) {
      for (const { attachment } of mapped) attachment.close();
      throw error;
    }
  });
}

/**
 * Maps what the descriptors say, and asks for them anew where a file is not what they said.
 * @param map which leaves nothing mapped if it fails. `isSure`: the server has said twice that it is just there.
 * @throws TensordError as `mapRegions`, and what `map` and `ask` throw
 */
export async function mapAnew<Mapped>(
  first: readonly RegionDescriptor[],
  ask: () => Promise<readonly RegionDescriptor[]>,
  map: (regions: readonly RegionDescriptor[], isSure: boolean) => Promise<Mapped>,
): Promise<Mapped> {
  let regions = first;
  let same = 0;
  for (let tries = 1; ; tries++) {
    try {
      return await map(regions, same > 0);
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error;
      const answer = await ask();
      same = isSamePlaces(answer, regions) ? same + 1 : 0;
      if (same === sameRegionTries || tries === attachTries) {
        const failed = regions.find(({ id }) => id === error.region);
        throw error.difference === "sealed" && failed !== undefined ? busy(failed) : error.toError();
      }
      regions = answer;
    }
  }
}

interface MappingOne extends WaitOptions {
  readonly access: Access;
  readonly isMaker: boolean;
  /** The server has said twice that it is just there. */
  readonly isSure: boolean;
}

async function mapAllOf(
  asker: Asker,
  region: RegionDescriptor,
  { access, isMaker, isSure, signal }: MappingOne,
): Promise<Attachment> {
  check(region, access);
  if (isHeap(region)) return mapCopy(asker, region, { access, isMaker, isSure, signal });
  const { kind: storage, path, dev, ino, byteSize, makerByte, mtimeNs } = region.storage;
  // A server from before there was a maker's byte does not ask for it.
  const role = isMaker && makerByte === true ? "maker" : "consumer";
  // For references: no path of a file of somebody else's says whose region it is.
  const instance = isOrigin({ storage }) ? await asker.api.instance(signal) : undefined;
  const place = standingAt(asker, { region: region.id, instance, storage, path, dev, ino, byteSize, role, mtimeNs });
  return mapKept(asker.session, [{ ...place, isSure }, 0, byteSize, access], signal);
}

/** Maps this process's own memory for a region that no process maps. */
async function mapCopy(
  { api, session }: Asker,
  region: RegionDescriptor,
  { access, isMaker, signal }: MappingOne,
): Promise<Attachment> {
  const { kind: storage, path, dev, ino, byteSize } = region.storage;
  // For references: no path says whose it is, and no broker was asked.
  const instance = await api.instance(signal);
  const copy = isMaker ? makeLocal(region) : await getCopy(api, region, access, signal);
  try {
    const place = { region: region.id, storage, path, dev, ino, byteSize, instance, copy };
    const attachment = await mapKept(session, [place, 0, byteSize, access], signal);
    attachment.whenOver(() => copy.letGo());
    return attachment;
  } catch (error) {
    copy.letGo();
    throw error;
  }
}

function isSamePlaces(regions: readonly RegionDescriptor[], others: readonly RegionDescriptor[]): boolean {
  return regions.every(({ storage: { path, dev, ino } }, index) => {
    const other = others[index]?.storage;
    return path === other?.path && dev === other.dev && ino === other.ino;
  });
}

/** That a region stands, in memory that can be mapped so. */
function check(region: RegionDescriptor, access: Access): void {
  const { kind } = region.storage;
  if (!isMappable(kind)) {
    const detail = `Cannot map ${shown(region)}: its storage is ${kind}, want shm, memfd, heap or file`;
    throw new TensordError("feature-unavailable", detail, { hint: unmappableHint(kind) });
  }
  checkStanding(region, access);
}

/** That a region stands, and can be had so. */
export function checkStanding(region: RegionDescriptor, access: Access): void {
  const { state } = region;
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
  const { changed = null, path } = region.storage;
  if (changed !== null) {
    const detail = `Cannot attach ${shown(region)}: its file ${path} is ${changed.replace("-", " ")} since it was loaded`;
    throw new TensordError("stale-ref", detail, {
      hint:
        "load it again: what is there now is another version; replace a model file by a rename, and what is mapped stays " +
        "whole",
      fields: { changed },
    });
  }
  if (state === "creating" || (access === "write" && state === "sealing")) throw busy(region);
}

function busy(region: RegionDescriptor): TensordError {
  const detail = `Cannot attach ${shown(region)}: it is ${region.state}, in the middle of a step`;
  return new TensordError("region-busy", detail, { hint: "try again in a moment" });
}
