/**
 * A tmpfs without a free page during each operation on sessions, claims, leases and models: what takes memory is refused
 * whole, what gives it back works, and a restart there agrees with both.
 */

import { afterAll, expect } from "bun:test";
import { unlinkSync } from "node:fs";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { needsRoot, testWith } from "../harness/instance-needs.ts";
import {
  claim,
  claimToBuild,
  endLease,
  endSession,
  findSession,
  holdSession,
  listLeases,
  openSession,
  releaseClaim,
  takeLease,
} from "../harness/instance-sessions.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Stats } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
/** A server that stops without a free page cannot keep its events; those who resume are told of a gap. */
const noEvents = /^Cannot keep the events /;

afterAll(assertNothingLeft);

/** What the books count, without what grows by the asking. */
function toCounts(stats: Stats) {
  const { regions, models, sessions, claims, leases } = stats;
  const { used_bytes: used, draining_bytes: draining } = hostOf(stats);
  return { regions, models, sessions, claims, leases, used, draining };
}

/** Fills rows until the journal, too, needs a page that is not there: its own file has some left at first. */
async function untilRefused(what: string, ask: () => Promise<{ status: number; body: unknown }>): Promise<unknown> {
  return await until(`${what} is refused`, async () => {
    const { status, body } = await ask();
    return status < 300 ? undefined : body;
  });
}

testWith(needsRoot)(
  "opening, claiming, leasing and registering without a free page are refused, and change nothing",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    server.log.expect(noEvents);
    const { api } = server;
    const session = await openSession(api);
    const region = await api.create({ name: "shared", byte_size: 20_000, persist: true });
    await api.seal(region.id);
    let count = 0;
    const operations: Record<string, () => [string, unknown]> = {
      session: () => ["/v1/sessions", { client: { name: "x".repeat(250) } }],
      claim: () => [`/v1/models/default/regions/n${count}/claim`, { session: session.id, key: "k".repeat(100) }],
      lease: () => [`/v1/regions/${region.id}/leases`, { ttl_ms: hour, session: session.id }],
      model: () => ["/v1/models", { name: `m${count}-${"x".repeat(100)}` }],
      region: () => ["/v1/regions", { byte_size: 10_000, session: session.id }],
    };
    for (const [what, toRequest] of Object.entries(operations)) {
      tmpfs.fill();
      const problem = await untilRefused(what, () => {
        count += 1;
        // What the log's own pages still take is no mistake; in the end there is none left.
        tmpfs.fill();
        return api.request("POST", ...toRequest());
      });
      expect(problem, what).toMatchObject({ status: 507, code: "out-of-shared-memory", errno: "ENOSPC" });
      const before = toCounts(await api.stats());
      expect((await api.request("POST", ...toRequest())).status, `${what}, again`).toBe(507);
      expect(toCounts(await api.stats()), `a refused ${what} changes nothing`).toEqual(before);
    }
    const before = toCounts(await api.stats());
    await server.crash();
    expect(toCounts(await api.stats()), "the rows say what the books said").toEqual(before);
    unlinkSync(`${tmpfs.path}/foreign`);
    expect((await api.request("POST", "/v1/sessions", {})).status).toBe(201);
    await checkBooks(server);
  },
);

interface Ending {
  readonly claim: string;
  /** Of a session that is held until it ends, so that no TTL runs before. */
  readonly ttlMs?: number;
  readonly end: (server: TestServer, session: string) => Promise<unknown>;
}

const endings: readonly Ending[] = [
  { claim: "by request", end: ({ api }, session) => endSession(api, session) },
  { claim: "with its socket", end: async (server, session) => (await holdSession(server, session)).close() },
  {
    // Its TTL begins when the server starts.
    claim: "by its TTL, after a crash",
    ttlMs: 3000,
    end: (server) => server.crash(),
  },
];

for (const { claim: how, end, ttlMs } of endings) {
  testWith(needsRoot)(`a session ends ${how} without a free page, with all that is its own`, async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    server.log.expect(noEvents);
    const { api } = server;
    const shared = await api.create({ name: "shared", byte_size: 20_000, persist: true });
    await api.seal(shared.id);
    const session = await openSession(api, ttlMs === undefined ? {} : { ttl_ms: ttlMs });
    if (ttlMs !== undefined) await holdSession(server, session.id);
    const building = await claimToBuild(api, "built", session.id);
    await claimToBuild(api, "wanted", session.id);
    for (let at = 0; at < 3; at++) await api.create({ byte_size: 20_000, session: session.id });
    await api.create({ name: "built", byte_size: 2 * MiB, linger_ms: hour, claim: building });
    await takeLease(api, shared.id, session.id);
    tmpfs.fill();
    await end(server, session.id);
    await until("it has ended", async () => (await findSession(api, session.id)) === undefined);
    await until("all of it is gone", async () => (await api.list()).length === 1);
    expect(await api.stats()).toMatchObject({ sessions: 0, claims: 0, leases: 0, regions: { sealed: 1, draining: 0 } });
    await checkBooks(server);
    await server.crash();
    expect(await api.stats()).toMatchObject({ sessions: 0, claims: 0, leases: 0, regions: { sealed: 1, draining: 0 } });
  });
}

testWith(needsRoot)(
  "claims are released and built, leases end, models and owners change without a free page, and a crash keeps that",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    server.log.expect(noEvents);
    const { api } = server;
    const [builder, next] = [await openSession(api), await openSession(api)];
    const id = await claimToBuild(api, "built", builder.id);
    const built = await api.create({ name: "built", byte_size: 20_000, linger_ms: hour, claim: id });
    const given = await claimToBuild(api, "given-up", builder.id);
    const shared = await api.create({ name: "shared", byte_size: 20_000, persist: true });
    await api.seal(shared.id);
    const leases = [await takeLease(api, shared.id), await takeLease(api, shared.id)] as const;
    await api.call("POST", "/v1/models", { name: "model", memory_limit_bytes: MiB });
    const pooled = await api.create({ model: "model", name: "pooled", byte_size: 20_000, persist: true });
    tmpfs.fill();
    await api.seal(built.id, { checksum: true });
    expect(await claim(api, "built", next.id)).toMatchObject({ role: "reader", region: { id: built.id } });
    await releaseClaim(api, "given-up", given);
    await api.call("POST", `/v1/leases/${leases[1].id}/renew`);
    await api.call("POST", `/v1/sessions/${next.id}/renew`);
    await endLease(api, leases[0].id);
    const changed = await api.call("PATCH", `/v1/regions/${built.id}`, { evictable: true, labels: { full: "yes" } });
    expect(changed).toMatchObject({ evictable: true, revision: 3 });
    await api.call("DELETE", "/v1/models/model?drain=true");
    const check = async () => {
      expect(await api.get(built.id)).toMatchObject({ state: "sealed", session: null, labels: { full: "yes" } });
      expect((await listLeases(api, shared.id)).map(({ id }) => id)).toEqual([leases[1].id]);
      expect(await api.find(pooled.id)).toBeUndefined();
      expect(await api.stats()).toMatchObject({ claims: 0, leases: 1, models: 1, sessions: 2 });
      await checkBooks(server);
    };
    await check();
    await server.crash();
    await check();
    unlinkSync(`${tmpfs.path}/foreign`);
    await claimToBuild(api, "given-up", next.id);
  },
);
