/** What the tests of lingering regions ask: of lists, on purpose, since they hand nothing out and give nothing more time. */

import type { ListedRegion, Region, RegionList } from "../../harness/answers.ts";
import { type TestApp, until } from "../../harness/app.ts";

export async function peek(app: TestApp, { id }: Region): Promise<ListedRegion | undefined> {
  return (await app.ok<RegionList>(200, "GET", "/v1/regions")).items.find((region) => region.id === id);
}

export function untilEnded(app: TestApp, region: Region): Promise<true> {
  return until(`${region.id} has ended`, async () => (await peek(app, region)) === undefined);
}

/** The region once the server has asked for its leases in this moment of the clock, and let it be. */
export async function untilAsked(app: TestApp, region: Region): Promise<ListedRegion> {
  const now = Date.now();
  return until(`${region.id} is asked about`, async () => {
    const found = await peek(app, region);
    if (found === undefined) throw new Error(`${region.id} has ended`);
    return Date.parse(found.expires_at ?? "") > now ? found : undefined;
  });
}

/** When the server last saw a lease of it, in ms since the epoch. */
export function leasedAt(app: TestApp, { id }: Region): number {
  return app.store.books.region(id).leasedAt;
}

export function untilSeen(app: TestApp, region: Region): Promise<true> {
  const now = Date.now();
  return until("its lease is seen", () => leasedAt(app, region) >= now);
}
