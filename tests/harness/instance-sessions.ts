/** What tests ask of a server about sessions, claims and leases, typed by its own schemas, and the hold of a session. */

import type { z } from "@hono/zod-openapi";
import type * as requests from "../../src/routes/schemas/requests.ts";
import type * as sessions from "../../src/routes/schemas/session.ts";
import type { TestServer } from "./server.ts";
import type { ServerApi } from "./server-api.ts";
import { within } from "./server-wait.ts";

export type Session = z.infer<typeof sessions.Session>;
export type SessionList = z.infer<typeof sessions.SessionList>;
export type SessionEnd = z.infer<typeof sessions.SessionEnd>;
export type Claim = z.infer<typeof sessions.Claim>;
export type Lease = z.infer<typeof sessions.Lease>;
export type LeaseList = z.infer<typeof sessions.LeaseList>;

/** Longer than any test. */
export const longTtlMs = 3_600_000;

export function openSession(api: ServerApi, request: z.input<typeof requests.OpenSession> = {}): Promise<Session> {
  return api.call("POST", "/v1/sessions", { ttl_ms: longTtlMs, ...request });
}

/** The session, or undefined if there is none. */
export async function findSession(api: ServerApi, id: string): Promise<Session | undefined> {
  const { status, body } = await api.request<Session>("GET", `/v1/sessions/${id}`);
  return status === 200 ? body : undefined;
}

export async function listSessions(api: ServerApi): Promise<Session[]> {
  const sessions: Session[] = [];
  for (let cursor: string | null = "0"; cursor !== null; ) {
    const page: SessionList = await api.call("GET", `/v1/sessions?limit=1000&cursor=${cursor}`);
    sessions.push(...page.items);
    cursor = page.next_cursor;
  }
  return sessions;
}

/** Its TTL begins anew. */
export function renewSession(api: ServerApi, id: string): Promise<Session> {
  return api.call("POST", `/v1/sessions/${id}/renew`);
}

export function endSession(api: ServerApi, id: string): Promise<SessionEnd> {
  return api.call("DELETE", `/v1/sessions/${id}`);
}

/** Asks to build `name` of the model `default`, without waiting. */
export function claim(api: ServerApi, name: string, session: string, key?: string): Promise<Claim> {
  return api.call("POST", claimPath(name), { session, ...(key === undefined ? {} : { key }) });
}

/** The builder's claim. @throws Error if somebody else builds. */
export async function claimToBuild(api: ServerApi, name: string, session: string, key?: string): Promise<string> {
  const { role, claim: id } = await claim(api, name, session, key);
  if (id === null) throw new Error(`the claim of ${name} made a ${role}, want a builder`);
  return id;
}

export function releaseClaim(api: ServerApi, name: string, id: string): Promise<unknown> {
  return api.call("DELETE", `${claimPath(name)}?claim=${id}`);
}

export function claimPath(name: string): string {
  return `/v1/models/default/regions/${name}/claim`;
}

export function takeLease(api: ServerApi, region: string, session?: string): Promise<Lease> {
  const owner = session === undefined ? {} : { session };
  return api.call("POST", `/v1/regions/${region}/leases`, { ttl_ms: longTtlMs, ...owner });
}

export function endLease(api: ServerApi, id: string): Promise<unknown> {
  return api.call("DELETE", `/v1/leases/${id}`);
}

export async function listLeases(api: ServerApi, region: string): Promise<Lease[]> {
  return (await api.call<LeaseList>("GET", `/v1/regions/${region}/leases`)).items;
}

/** An open hold socket. Closing it is what the death of its process looks like. */
export async function holdSession(server: TestServer, id: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws+unix://${server.instance.socket}:/v1/sessions/${id}/hold`);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.onopen = () => resolve();
  socket.onerror = () => reject(new Error(`Cannot hold ${id}`));
  await within("the session is held", promise);
  return socket;
}
