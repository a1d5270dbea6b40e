/** Makes regions and fills them, and maps those that are there. Every mapping is reported to the client's session. */

import { TensordError } from "../errors.ts";
import type { Api, NewRegion } from "../http/api.ts";
import { type RegionDescriptor, shown } from "../http/wire.ts";
import type { Access } from "../memory/pages.ts";
import { type CreateOptions, defaultModel, type Owner } from "../options.ts";
import type { Session } from "../session/session.ts";
import { type MappedRegion, mapRegions, toAccess } from "./mapper.ts";
import { toOwner } from "./owner.ts";
import { Region } from "./region.ts";
import { copyAll, type RegionSource, type Source, toSources, toSpecs } from "./sources.ts";
import { tie } from "./ties.ts";

/** How long what was built under a claim lingers, unless its builder says otherwise. */
const builtLingerMs = 600_000;

/** Who asks: the routes, and the session unless the client has none. */
export interface Asker {
  readonly api: Api;
  readonly session: Session | undefined;
}

/** The right to build a name, and the session that has it. */
export interface HeldClaim {
  readonly id: string;
  readonly session: string;
}

/**
 * `client.create`. Under a claim, an open region that is there already is what a lost request of this claim made.
 * @throws TensordError `claim-not-found` if somebody else builds meanwhile
 */
export async function makeRegion(
  asker: Asker,
  name: string | null,
  data: RegionSource,
  options: CreateOptions,
  claim?: HeldClaim,
): Promise<Region> {
  const { api, session } = asker;
  const sources = tie(toSources(data));
  const { model = defaultModel, ifExists = "fail" } = options;
  const { version, evictable, onFull, deadlineMs, labels, signal } = options;
  const owner = toOwner(options);
  const create = (end: Owner | Pick<NewRegion, "session">) =>
    api.createRegion(
      {
        model,
        name: name ?? undefined,
        version,
        tensors: toSpecs(sources),
        ifExists,
        evictable,
        onFull,
        deadlineMs,
        labels,
        claim: claim?.id,
        ...end,
      },
      signal,
    );
  const isOwned = Object.values(owner).some((value) => value !== undefined);
  const isForSession = !isOwned && claim === undefined && session !== undefined;
  const { region, isCreated } = isForSession
    ? await session.use((id) => create({ session: id }), signal)
    : await create(isOwned || claim === undefined ? owner : { lingerMs: builtLingerMs });
  if (!isCreated && claim === undefined) {
    return mapExisting(asker, region, ({ state }) => toAccess({ writable: state === "open" }));
  }
  if (!isCreated && (region.state !== "open" || region.session !== claim?.session)) {
    throw new TensordError("claim-not-found", `Cannot build ${shown(region)}: another session has the claim by now`);
  }
  try {
    const mapped = await mapOne(
      asker,
      region,
      () => "write",
      () => api.region(region.id),
    );
    await fill(mapped, sources, signal);
    return new Region(api, mapped.region, mapped.attachment, true);
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
  const { region, attachment } = await mapOne(asker, first, choose, ask);
  return new Region(asker.api, region, attachment, false);
}

async function mapOne(
  asker: Asker,
  first: RegionDescriptor,
  choose: (region: RegionDescriptor) => Access,
  ask: () => Promise<RegionDescriptor>,
): Promise<MappedRegion> {
  const [mapped] = await mapReported(asker, [first], choose, async () => [await ask()]);
  return mapped as MappedRegion;
}

/** Maps one region or a group, which `ask` gets anew, and tells the session of it. */
export async function mapReported(
  { api, session }: Asker,
  first: readonly RegionDescriptor[],
  choose: (region: RegionDescriptor) => Access,
  ask: () => Promise<readonly RegionDescriptor[]>,
): Promise<readonly MappedRegion[]> {
  const mapped = await mapRegions(api, first, ask, choose);
  for (const { attachment } of mapped) session?.report(attachment);
  session?.openSoon();
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
