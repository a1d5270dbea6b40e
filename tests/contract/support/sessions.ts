/** What the tests of sessions, claims and leases ask for again and again, typed by the server's own schemas. */

import type { z } from "@hono/zod-openapi";
import type * as evictions from "../../../src/routes/schemas/eviction.ts";
import type * as sessions from "../../../src/routes/schemas/session.ts";
import type { RegionDetail } from "../../harness/answers.ts";
import { type TestApp, until } from "../../harness/app.ts";

export type Session = z.infer<typeof sessions.Session>;
export type SessionList = z.infer<typeof sessions.SessionList>;
export type SessionEnd = z.infer<typeof sessions.SessionEnd>;
export type Claim = z.infer<typeof sessions.Claim>;
export type Lease = z.infer<typeof sessions.Lease>;
export type LeaseList = z.infer<typeof sessions.LeaseList>;
export type Eviction = z.infer<typeof evictions.Eviction>;

/** The shortest TTL that a session, or a lease, may have. */
export const shortestTtlMs = 1000;
/** Short enough to be waited for, long enough for what a test does before it is over, on a machine that is busy too. */
export const shortTtlMs = 2000;

/** For longer than any test, unless it says otherwise: nobody renews it. */
export function openSession(app: TestApp, body: object = {}): Promise<Session> {
  return app.ok<Session>(201, "POST", "/v1/sessions", { ttl_ms: 3_600_000, ...body });
}

export function getSession(app: TestApp, { id }: Session): Promise<Session> {
  return app.ok<Session>(200, "GET", `/v1/sessions/${id}`);
}

export function endSession(app: TestApp, { id }: Session): Promise<SessionEnd> {
  return app.ok<SessionEnd>(200, "DELETE", `/v1/sessions/${id}`);
}

export const claimPath = "/v1/models/default/regions/weights/claim";

export interface ClaimOptions {
  readonly key?: string;
  /** Seconds of `Prefer: wait`. */
  readonly wait?: number;
}

/** Claims the name `weights` of the model `default`. */
export function claimName(app: TestApp, { id }: Session, { key, wait }: ClaimOptions = {}): Promise<Claim> {
  const body = { session: id, ...(key === undefined ? {} : { key }) };
  return app.ok<Claim>(200, "POST", claimPath, body, wait === undefined ? {} : { headers: { prefer: `wait=${wait}` } });
}

/** Leases the region, or one that it makes. */
export async function takeLease(app: TestApp, region?: string, body: object = { ttl_ms: 60_000 }): Promise<Lease> {
  const id = region ?? (await app.create()).id;
  return app.ok<Lease>(201, "POST", `/v1/regions/${id}/leases`, body);
}

export function evict(app: TestApp, body: object): Promise<Eviction> {
  return app.ok<Eviction>(200, "POST", "/v1/evict", body);
}

/** Resolves when nobody knows what the path names any more. */
export function untilGone(app: TestApp, path: string): Promise<true> {
  return until(`${path} is gone`, async () => (await app.request("GET", path)).status === 404);
}

/** The region once it is in this state. */
export function untilState(app: TestApp, id: string, state: string): Promise<RegionDetail> {
  return until(`${id} is ${state}`, async () => {
    const region = await app.get(id);
    return region.state === state ? region : undefined;
  });
}

/** Counts who waits for a name from here on. @returns what resolves once `count` of them wait. */
export function watchWaits({ store: { waiters } }: TestApp): (count: number) => Promise<true> {
  const wait = waiters.wait.bind(waiters);
  let waiting = 0;
  waiters.wait = async (...request) => {
    waiting += 1;
    try {
      await wait(...request);
    } finally {
      waiting -= 1;
    }
  };
  return (count) => until(`${count} wait`, () => waiting === count);
}
