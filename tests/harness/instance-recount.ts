/** The books of a store that nobody works on, counted again from nothing: every sum, index and row must agree. */

import { expect } from "bun:test";
import type { Region } from "../../src/memory/state/region.ts";
import type { Session } from "../../src/memory/state/session.ts";
import type { Store } from "../../src/memory/state/store.ts";

/** Asserts that what is kept beside the regions themselves is what they add up to. Nothing may be under way. */
export function recount(store: Store): void {
  const regions = [...store.books.regions.after(0)];
  const sessions = [...store.books.sessions.after(0)];
  recountRegions(store, regions);
  for (const session of sessions) recountSession(store, session, regions);
  recountClaimsAndLeases(store, regions, sessions);
  compareRows(store, regions, sessions);
}

function sum(regions: readonly Region[]): number {
  return regions.reduce((total, { chargedBytes }) => total + chargedBytes, 0);
}

function recountRegions({ books }: Store, regions: readonly Region[]): void {
  const standing = regions.filter(({ state }) => state !== "draining");
  const draining = regions.filter(({ state }) => state === "draining");
  const server = books.pools.get("host");
  expect([server.usedBytes, server.drainingBytes], "the server's sums").toEqual([sum(standing), sum(draining)]);
  for (const state of ["creating", "open", "sealing", "sealed", "draining"] as const) {
    expect(books.counts[state], `regions that are ${state}`).toBe(regions.filter((one) => one.state === state).length);
  }
  expect(books.counts.creating + books.counts.sealing, "nothing is under way").toBe(0);
  for (const model of books.models.values()) {
    const own = standing.filter(({ modelBooks }) => modelBooks === model);
    const pool = model.pools.get("host");
    expect(pool.usedBytes, `${model.name}'s sum`).toBe(sum(own));
    expect(pool.drainingBytes).toBe(sum(draining.filter(({ modelBooks }) => modelBooks === model)));
    const named = own.filter(({ name }) => name !== null);
    for (const region of named) expect(model.names.get(region.name ?? "", region.version)).toBe(region);
    expect(model.names.size).toBe(named.length);
  }
  const evictable = standing.filter((region) => region.evictable).map(({ token }) => token);
  const listed = [...books.evictables].flatMap((one) => ("evict" in one ? [] : one.token));
  expect(listed.toSorted()).toEqual(evictable.toSorted());
  for (const region of draining) {
    expect([books.sessionOf(region), region.name], "what drains is nobody's").toEqual([null, null]);
  }
}

function recountSession(store: Store, session: Session, regions: readonly Region[]): void {
  const own = regions.filter((region) => region.session === session.token && region.state !== "draining");
  expect(session.usedBytes, `what ${session.token} pays for`).toBe(sum(own));
  expect([...session.regions].map(({ token }) => token).toSorted()).toEqual(own.map(({ token }) => token).toSorted());
  for (const region of own) expect(store.books.sessionOf(region), "the region knows its session").toBe(session);
  for (const claim of session.claims) expect(store.claims.of(claim)).toBe(claim);
  for (const lease of session.leases) expect(store.requestedLeases.get(lease.token)).toBe(lease);
  expect(session.end, "no session is ending").toBeNull();
}

function recountClaimsAndLeases(store: Store, regions: readonly Region[], sessions: readonly Session[]): void {
  expect(store.claims.size).toBe(sessions.reduce((total, { claims }) => total + claims.size, 0));
  let leases = 0;
  for (const region of regions) {
    const own = store.requestedLeases.of(region);
    leases += own.size;
    expect(region.serverLeases, `leases of ${region.token}`).toBe(own.size);
    for (const { session } of own.after(0)) if (session !== null) expect(sessions).toContain(session);
  }
  expect(store.requestedLeases.size).toBe(leases);
  expect(store.room.size, "nobody waits for memory").toBe(0);
}

/** What a restart would read is what the books say. */
function compareRows(
  { journal, books, claims, requestedLeases }: Store,
  regions: readonly Region[],
  sessions: readonly Session[],
) {
  const content = journal.read();
  const { regions: rows, sessions: sessionRows, claims: claimRows, leases: leaseRows, models } = content;
  expect(content.strayTensors, "tensors go with their region").toEqual([]);
  const toFacts = ({ key, token, state, name, pendingName, evictable, revision }: (typeof rows)[number]) => {
    return { key, token, state, name, pendingName, evictable, revision };
  };
  expect(rows.map(toFacts)).toEqual(regions.map(toFacts));
  expect(sessionRows.map(({ token }) => token)).toEqual(sessions.map(({ token }) => token));
  expect(claimRows).toHaveLength(claims.size);
  for (const { token, ...name } of claimRows) expect(claims.of(name)?.token).toBe(token);
  expect(leaseRows).toHaveLength(requestedLeases.size);
  for (const { token, region } of leaseRows) expect(requestedLeases.get(token)?.region.token).toBe(region);
  expect(models.map(({ name }) => name).toSorted()).toEqual(
    [...books.models.keys()].filter((name) => name !== "default").toSorted(),
  );
}
