/** Makes regions and fills them, and maps those that are there. Every mapping is reported to the client's session. */

import { isTensordError, TensordError } from "../errors.ts";
import type { Api, Creation, NewRegion } from "../http/api.ts";
import { isHandOff, type RegionDescriptor, shown } from "../http/wire.ts";
import type { Access } from "../memory/pages.ts";
import { type CreateOptions, defaultModel, type Owner } from "../options.ts";
import type { WaitOptions } from "../waiting.ts";
import type { Asker } from "./asker.ts";
import { type MappedRegion, type Mapping, mapRegions, toAccess } from "./mapper.ts";
import { toOwner } from "./owner.ts";
import { Region } from "./region.ts";
import { copyAll, type RegionSource, type Source, toSources, toSpecs } from "./sources.ts";
import { tie } from "./ties.ts";

/** How long what was built under a claim lingers, unless its builder says otherwise. */
export const builtLingerMs = 600_000;

/** The right to build a name, and the session that has it. */
export interface HeldClaim {
  readonly id: string;
  readonly session: string;
}

/**
 * `client.create`. Where this process shares no memory with the server, what does not say what it is made of is made in heap storage.
 * Under a claim, an open region that is there already is what a lost request of this claim made.
 * @throws TensordError `claim-not-found` if somebody else builds meanwhile
 */
export async function makeRegion(
  asker: Asker,
  name: string | null,
  data: RegionSource,
  options: CreateOptions,
  claim?: HeldClaim,
): Promise<Region> {
  const { api } = asker;
  const sources = tie(toSources(data));
  const { storage, private: isPrivate, hugePages } = options;
  const isSaid = storage !== undefined || isPrivate !== undefined || hugePages !== undefined;
  if (isSaid) return make(asker, name, sources, options, claim);
  const inHeap: CreateOptions = { ...options, storage: "heap" };
  if (api.sharesNoMemory) return make(asker, name, sources, inHeap, claim);
  try {
    return await make(asker, name, sources, options, claim);
  } catch (error) {
    // Found out by trying: that costs nothing where there is shared memory, and nothing else is as sure.
    if (!isTensordError(error, "wrong-namespace")) throw error;
    const region = await make(asker, name, sources, inHeap, claim).catch((refusal: unknown) => {
      throw isTensordError(refusal, "storage-unavailable") ? error : refusal;
    });
    if (!api.sharesNoMemory) warnOfHeap(api, error);
    api.sharesNoMemory = true;
    return region;
  }
}

function warnOfHeap({ transport }: Api, { message }: TensordError): void {
  const why =
    `This process shares no memory with tensord on ${transport.endpoint.url}, so its regions are made in heap storage: each is ` +
    "uploaded by its seal, and downloaded by who attaches it";
  process.emitWarning(`${why}. ${message}`, { type: "TensordWarning", code: "wrong-namespace" });
}

async function make(
  asker: Asker,
  name: string | null,
  sources: readonly Source[],
  options: CreateOptions,
  claim: HeldClaim | undefined,
): Promise<Region> {
  const { api } = asker;
  const { model = defaultModel, ifExists = "fail", private: isPrivate } = options;
  const { version, storage, hugePages, evictable, onFull, deadlineMs, labels, signal } = options;
  const wanted = {
    model,
    name: name ?? undefined,
    version,
    storage,
    private: isPrivate,
    hugePages,
    tensors: toSpecs(sources),
    ifExists,
    evictable,
    onFull,
    deadlineMs,
    labels,
  };
  const { region, isCreated } = await requestRegion(asker, wanted, options, claim);
  if (!isCreated && claim === undefined) {
    return mapExisting(asker, region, ({ state }) => toAccess({ writable: state === "open" }));
  }
  if (!isCreated && (region.state !== "open" || region.session !== claim?.session)) {
    throw new TensordError("claim-not-found", `Cannot build ${shown(region)}: another session has the claim by now`);
  }
  return orDeleted(api, region, async () => {
    const ask = () => api.region(region.id);
    const mapped = await mapOne(asker, region, { ask, choose: () => "write", isMaker: true });
    await fill(mapped, sources, signal);
    return new Region(api, mapped.region, mapped.attachment, true);
  });
}

/** Has the server make a region, which ends as its options say, else with this client's session. */
export async function requestRegion(
  { api, session }: Asker,
  wanted: NewRegion,
  { signal, ...options }: Owner & WaitOptions,
  claim?: HeldClaim,
): Promise<Creation> {
  const owner = toOwner(options);
  const create = (end: Owner | Pick<NewRegion, "session">) =>
    api.createRegion({ ...wanted, claim: claim?.id, ...end } as NewRegion, signal);
  const isOwned = Object.values(owner).some((value) => value !== undefined);
  const isSessions = claim === undefined && session !== undefined;
  const createInSession = (id: string, tellsMakers: boolean) => {
    if (!isOwned) return create({ session: id });
    // A hand-off that is never sealed shall end with this process. A server that knows no makers knows no builder either.
    return create(tellsMakers ? { ...owner, session: id } : owner);
  };
  return isSessions && (!isOwned || owner.lingerMs === 0)
    ? session.use(createInSession, signal)
    : create(isOwned || claim === undefined ? owner : { lingerMs: builtLingerMs });
}

/** Does what makes a new region whole, or deletes it. */
export async function orDeleted<Result>(
  api: Api,
  region: RegionDescriptor,
  make: () => Promise<Result>,
): Promise<Result> {
  try {
    return await make();
  } catch (error) {
    // Nobody may find a half-written region under the name; the failure itself is what counts.
    await api.deleteRegion(region.id).catch(() => undefined);
    throw error;
  }
}

/** Maps a region, which `ask` gets anew, else its id does. */
export async function mapExisting(
  asker: Asker,
  first: RegionDescriptor,
  choose: (region: RegionDescriptor) => Access,
  ask = () => asker.api.region(first.id),
): Promise<Region> {
  const { region, attachment } = await mapOne(asker, first, { ask, choose });
  return new Region(asker.api, region, attachment, false);
}

async function mapOne(
  asker: Asker,
  first: RegionDescriptor,
  { ask, ...rest }: Omit<Mapping, "ask"> & { readonly ask: () => Promise<RegionDescriptor> },
): Promise<MappedRegion> {
  const [mapped] = await mapReported(asker, [first], { ...rest, ask: async () => [await ask()] });
  return mapped as MappedRegion;
}

/** Maps one region or a group, which `ask` gets anew, and tells the session of it. */
export async function mapReported(
  asker: Asker,
  first: readonly RegionDescriptor[],
  mapping: Mapping,
): Promise<readonly MappedRegion[]> {
  const { session } = asker;
  const mapped = await mapRegions(asker, first, mapping);
  // A copy maps nothing of the region.
  const shared = mapped.filter(({ attachment }) => attachment.place.copy === undefined);
  for (const { region, attachment } of shared) session?.report(attachment, isHandOff(region));
  if (shared.length > 0) session?.openSoon();
  return mapped;
}

/** Copies the sources into their tensors. Lets go of the region if it fails. */
async function fill(
  { region, attachment }: MappedRegion,
  sources: readonly Source[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const offsets = new Map(region.tensors.map(({ name, byteOffset }) => [name, byteOffset]));
  try {
    const parts = sources.flatMap(({ name, bytes, aliasOf }) => {
      const offset = offsets.get(name);
      return bytes === undefined || offset === undefined || aliasOf !== undefined ? [] : [{ offset, bytes }];
    });
    await copyAll((start, size) => attachment.addressOf(start, size), parts, signal);
  } catch (error) {
    attachment.close();
    throw error;
  }
}
