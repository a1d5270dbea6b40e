/**
 * After a restart: holds every promise of every client of `killed-at-random.test.ts` against what is there, and learns
 * what became of the requests under way: the whole, or nothing.
 */

import { expect } from "bun:test";
import { checkBooks } from "../harness/instance-check.ts";
import { readContent } from "../harness/instance-content.ts";
import { claim, endSession, type Lease, listSessions, type Session } from "../harness/instance-sessions.ts";
import type { TestServer } from "../harness/server.ts";
import type { Region, ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { type Client, isUnderWay } from "./random-client.ts";
import type { Known, Party } from "./random-party.ts";

export async function checkRestart(
  server: TestServer,
  party: Party,
  clients: readonly Client[],
  foreign: readonly string[],
): Promise<void> {
  const { api } = server;
  for (const client of clients) await learnEnds(api, client);
  await until("what was half done is freed", async () => (await api.stats()).regions.draining === 0);
  const regions = new Map<string, Region>();
  for (const { id } of await checkBooks(server, foreign)) regions.set(id, await api.descriptor(id));
  for (const client of clients) await checkRegions(api, party, client, regions);
  party.settleVanished();
  const known = new Set(clients.flatMap((client) => [...client.known.keys()]));
  for (const region of regions.values()) if (!known.has(region.id)) adopt(region, party, clients);
  await checkSessions(api, party, clients);
  for (const client of clients) await learnClaim(api, party, client);
  for (const client of clients) client.underWay = null;
  await checkClaims(api, party, clients);
  await checkTotals(api, party, clients);
}

/** What ends several things, or one that others hang on, is learnt first. */
async function learnEnds(api: ServerApi, client: Client): Promise<void> {
  const ending = isUnderWay(client, "end-session")?.session;
  if (ending !== undefined) {
    // A session that is there still can be ended again, whatever of it is gone.
    const { status } = await api.request("GET", `/v1/sessions/${ending}`);
    if (status !== 404) await endSession(api, ending);
    client.endSession(ending);
  }
  const released = isUnderWay(client, "release")?.claim;
  if (released !== undefined) {
    const path = `/v1/models/default/regions/${released.name}/claim?claim=${released.id}`;
    expect((await api.request("DELETE", path)).status).toBeOneOf([200, 404]);
    client.claims.delete(released.name);
  }
  const taking = isUnderWay(client, "lease");
  if (taking !== undefined) {
    const found = (await findLeases(api, taking.one.region.id)).filter(({ id }) => !client.leases.has(id));
    expect(found.length, "a lease without an answer is there once, or not").toBeLessThanOrEqual(1);
    for (const lease of found) {
      expect(lease.session).toBe(taking.session);
      client.leases.set(lease.id, lease);
    }
  }
  const lease = isUnderWay(client, "end-lease")?.lease;
  if (lease === undefined) return;
  const left = await findLeases(api, lease.region);
  if (!left.some(({ id }) => id === lease.id)) client.forgetLease(lease);
}

async function findLeases(api: ServerApi, region: string): Promise<Lease[]> {
  const { status, body } = await api.request<{ items: Lease[] }>("GET", `/v1/regions/${region}/leases`);
  return status === 404 ? [] : body.items;
}

async function checkRegions(
  api: ServerApi,
  party: Party,
  client: Client,
  all: ReadonlyMap<string, Region>,
): Promise<void> {
  for (const [id, why] of client.gone) if (all.has(id)) party.orphans.push(`${id} is there, though ${why}`);
  client.gone.clear();
  learnReplaced(party, client, all);
  for (const one of [...client.known.values()]) {
    const now = all.get(one.region.id);
    if (now === undefined) {
      learnMissing(party, client, one);
      continue;
    }
    checkStanding(client, one, now);
    if (now.checksum !== null && (await api.verify(now.id)).ok !== true) party.lost.push(`${now.id} has other bytes`);
  }
}

/** A seal without an answer may have taken a name over, and then its holder is gone by right. */
function learnReplaced(party: Party, client: Client, all: ReadonlyMap<string, Region>): void {
  const one = isUnderWay(client, "seal")?.one;
  if (one === undefined || all.get(one.region.id)?.state !== "sealed") return;
  const holder = client.holderOf(one.region.pending_name);
  if (holder === undefined) return;
  if (all.has(holder.region.id)) party.orphans.push(`${holder.region.id} is replaced, and is there`);
  client.forget(holder.region.id, "it was replaced");
  client.gone.clear();
}

function learnMissing(party: Party, client: Client, one: Known): void {
  const { id, evictable, state } = one.region;
  const wasSealed = state === "sealed" || isUnderWay(client, "seal")?.one === one;
  if (isUnderWay(client, "delete")?.one === one) client.forget(id, "it is gone");
  else if (evictable && wasSealed && !client.isLeased(id)) party.vanish(client, one);
  else {
    party.lost.push(`${id} was acknowledged and is gone`);
    client.forget(id, "it is gone");
  }
  client.gone.delete(id);
}

function checkStanding(client: Client, one: Known, now: Region): void {
  const { region } = one;
  const { underWay } = client;
  const isMeant = underWay !== null && "one" in underWay && underWay.one === one;
  const mayChange = isMeant && (underWay.kind === "seal" || underWay.kind === "label");
  // A deletion that began goes on after the restart, so what stands was not touched by it.
  const changes = now.revision - region.revision;
  expect(changes, `${region.id}: at most the request under way changed it`).toBeOneOf(mayChange ? [0, 1] : [0]);
  const isChanged = changes === 1;
  const labels = isChanged && underWay?.kind === "label" ? { ...region.labels, value: underWay.asked } : region.labels;
  const sealed = isChanged && underWay?.kind === "seal" ? toSealed(region, now) : {};
  expect(lasting(now)).toEqual({ ...lasting(region), labels, revision: now.revision, ...sealed });
  client.settle(one, now);
  expect(readContent(now.storage.path), `${region.id} has its bytes`).toEqual(one.content);
}

function toSealed({ name, pending_name, owner, session }: Region, { sealed_at, checksum }: Region) {
  return {
    state: "sealed",
    name: name ?? pending_name,
    pending_name: null,
    sealed_at,
    checksum,
    session: owner.kind === "session" ? session : null,
  };
}

/** Without what is not kept, and without ends that are found by looking for leases. */
function lasting(region: Region) {
  const { last_used_at: _, expires_at, ...rest } = region;
  return { ...rest, expires_at: rest.owner.kind === "ttl" ? expires_at : null };
}

/** A region that nobody was told of: it must be whole, and the creation that was under way must explain it. */
function adopt(region: Region, party: Party, clients: readonly Client[]): void {
  const isAsked = (client: Client) =>
    isUnderWay(client, "create")?.request.labels?.asked === region.labels.asked && region.labels.asked !== undefined;
  const client = clients.find(isAsked);
  const request = client && isUnderWay(client, "create")?.request;
  if (client === undefined || request === undefined) {
    party.orphans.push(`${region.id} was not asked for`);
    return;
  }
  expect(region).toMatchObject({ state: "open", revision: 1, evictable: request.evictable ?? false });
  expect(region.name ?? region.pending_name).toBe(request.name ?? null);
  expect(region.tensors.map(({ byte_size }) => byte_size)).toEqual([request.byte_size ?? -1]);
  const builds = [...client.claims.values()].find(({ id }) => id === request.claim);
  expect(region.session).toBe(request.session ?? builds?.session ?? null);
  client.known.set(region.id, { region, content: readContent(region.storage.path) });
}

async function checkSessions(api: ServerApi, party: Party, clients: readonly Client[]): Promise<void> {
  const found = new Map((await listSessions(api)).map((session) => [session.id, session]));
  for (const client of clients) {
    const opening = isUnderWay(client, "open-session")?.name;
    for (const session of found.values()) if (session.name === opening) client.sessions.set(session.id, session);
    for (const session of client.sessions.values()) {
      const own = [...client.known.values()].filter(({ region }) => region.session === session.id);
      const now = found.get(session.id);
      expect(now && standing(now), `${session.id} is as it was acknowledged`).toEqual(standing(session));
      expect(now?.regions, `what ${session.id} owns`).toBe(own.length);
      found.delete(session.id);
    }
  }
  for (const id of found.keys()) party.orphans.push(`${id} is nobody's`);
}

function standing({ expires_at: _, used_bytes: __, regions: ___, ...session }: Session) {
  return session;
}

/** Whoever lost the answer asks again under the same key. */
async function learnClaim(api: ServerApi, party: Party, client: Client): Promise<void> {
  const request = isUnderWay(client, "claim");
  if (request === undefined) return;
  const { name, session, key } = request;
  client.settleClaim({ name, session, key }, await claim(api, name, session, key), party.standOf(name));
}

/** Each right stands under its key and is nobody else's, and what is built is found by all who want to build it. */
async function checkClaims(api: ServerApi, party: Party, clients: readonly Client[]): Promise<void> {
  for (const client of clients) {
    for (const held of [...client.claims.values()]) {
      client.settleClaim(held, await claim(api, held.name, held.session, held.key), party.standOf(held.name));
    }
  }
  const [other] = clients.flatMap(({ sessions }) => [...sessions.keys()]);
  if (other === undefined) return;
  for (const name of new Set(party.all.flatMap((one) => [...one.claims.keys(), ...one.builtNames()]))) {
    const { claim: held, built } = party.standOf(name);
    const answer = await claim(api, name, other);
    if (answer.role === "builder") party.repeated.push(`${name} has a builder (${held}) or is built (${built})`);
    if (built !== undefined && answer.region?.id !== built) party.lost.push(`${name} is not found as ${built}`);
  }
}

async function checkTotals(api: ServerApi, party: Party, clients: readonly Client[]): Promise<void> {
  for (const region of new Set(clients.flatMap(({ leases }) => [...leases.values()].map((lease) => lease.region)))) {
    const own = clients.flatMap(({ leases }) => [...leases.values()].filter((lease) => lease.region === region));
    expect((await findLeases(api, region)).map(toFacts).toSorted(byId)).toEqual(own.map(toFacts).toSorted(byId));
  }
  const { sessions, claims, leases } = await api.stats();
  const count = (of: "sessions" | "claims" | "leases") => clients.reduce((sum, client) => sum + client[of].size, 0);
  const known = { sessions: count("sessions"), claims: count("claims"), leases: count("leases") };
  for (const [what, number] of Object.entries({ sessions, claims, leases })) {
    const promised = known[what as keyof typeof known];
    if (number > promised) party.orphans.push(`there are ${number} ${what}, and ${promised} were promised`);
    if (number < promised) party.lost.push(`there are ${number} ${what}, and ${promised} were promised`);
  }
}

function toFacts({ expires_at: _, ...lease }: Lease) {
  return lease;
}

function byId(one: { id: string }, other: { id: string }): number {
  return one.id < other.id ? -1 : 1;
}
