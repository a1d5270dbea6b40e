/** Sessions held by real processes: what dies with the worker, and what outlives the server. */

import { afterAll, describe, expect } from "bun:test";
import { existsSync } from "node:fs";
import { testWith } from "../harness/instance-needs.ts";
import { holdSession } from "../harness/instance-sessions.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import type { TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until, within } from "../harness/server-wait.ts";

/** So long that no test sees its end. */
const longTtlMs = 86_400_000;
/** Of a session that is held from its first moment on, so that it ends when the test wants it to. */
const shortTtlMs = 3000;

interface Session {
  readonly id: string;
  readonly held: boolean;
  readonly regions: number;
  readonly used_bytes: number;
  readonly expires_at: string | null;
}

interface Claim {
  readonly role: string;
  readonly claim: string | null;
}

interface Lease {
  readonly id: string;
  readonly expires_at: string;
}

const claimPath = "/v1/models/default/regions/built/claim";

afterAll(endLentServers);

/** A process that holds a session and says what comes of its socket. */
class Holder implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "inherit">;
  #said = "";

  private constructor(url: string) {
    const script = `
      const socket = new WebSocket(${JSON.stringify(url)});
      socket.onopen = () => console.log("open");
      socket.onclose = ({ code }) => console.log("closed", code);
      setInterval(() => {}, 60_000);`;
    this.#process = Bun.spawn([process.execPath, "-e", script], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    void this.#read();
  }

  static async start({ instance, api }: TestServer, id: string): Promise<Holder> {
    const holder = new Holder(`ws+unix://${instance.socket}:/v1/sessions/${id}/hold`);
    await holder.says("open");
    await until("the session is held", async () => (await api.call<Session>("GET", `/v1/sessions/${id}`)).held);
    return holder;
  }

  async #read(): Promise<void> {
    for await (const bytes of this.#process.stdout) this.#said += Buffer.from(bytes).toString();
  }

  says(words: string): Promise<unknown> {
    return until(`the holder says ${words}`, () => this.#said.includes(words));
  }

  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await within("the holder is gone", this.#process.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

function open({ api }: TestServer, ttl_ms: number): Promise<Session> {
  return api.call<Session>("POST", "/v1/sessions", { name: "worker", ttl_ms });
}

async function untilEnded({ api }: TestServer, { id }: Session): Promise<void> {
  await until(`${id} has ended`, async () => (await api.request("GET", `/v1/sessions/${id}`)).status === 404);
}

describe("a worker that holds its session", () => {
  testWith()("and is killed takes it along, with all that it owns, long before any TTL", async () => {
    await using server = await lendServer();
    const session = await open(server, longTtlMs);
    const other = await open(server, longTtlMs);
    const own = await server.api.create({ name: "own", byte_size: 1, session: session.id });
    const { claim } = await server.api.call<Claim>("POST", claimPath, { session: session.id });
    const built = await server.api.create({ name: "built", byte_size: 1, persist: true, claim: claim ?? "" });
    const kept = await server.api.create({ name: "kept", byte_size: 1, session: other.id });
    await using holder = await Holder.start(server, session.id);
    await holder.kill();
    await untilEnded(server, session);
    for (const { id, storage } of [own, built]) {
      await server.api.untilGone(id);
      expect(existsSync(storage.path)).toBeFalse();
    }
    expect((await server.api.get(kept.id)).state).toBe("open");
    expect(await server.api.stats()).toMatchObject({ sessions: 1, claims: 0, regions: { open: 1, draining: 0 } });
  });

  testWith()("twice takes it along when both are gone", async () => {
    await using server = await lendServer();
    const session = await open(server, longTtlMs);
    await using first = await Holder.start(server, session.id);
    await using second = await Holder.start(server, session.id);
    const witness = await open(server, longTtlMs);
    await using third = await Holder.start(server, witness.id);
    await first.kill();
    await third.kill();
    await untilEnded(server, witness);
    expect(await server.api.call<Session>("GET", `/v1/sessions/${session.id}`)).toMatchObject({ held: true });
    await second.kill();
    await untilEnded(server, session);
  });
});

interface Stay {
  readonly session: Session;
  readonly own: Region;
  readonly built: Region;
  readonly claim: Claim;
  readonly lease: Lease;
}

/** A session with everything that one can have. `opened` is called before it has anything. */
async function settle(
  server: TestServer,
  ttl_ms: number,
  opened: (session: Session) => Promise<unknown> = async () => {},
): Promise<Stay> {
  const { api } = server;
  const session = await open(server, ttl_ms);
  await opened(session);
  const own = await api.create({ name: "own", byte_size: 1, session: session.id });
  const claim = await api.call<Claim>("POST", claimPath, { session: session.id, key: "k" });
  const built = await api.create({ name: "built", byte_size: 1, linger_ms: 0, claim: claim.claim ?? "" });
  const lease = await api.call<Lease>("POST", `/v1/regions/${own.id}/leases`, { ttl_ms, session: session.id });
  return { session: await api.call("GET", `/v1/sessions/${session.id}`), own, built, claim, lease };
}

describe("a session outlives the server", () => {
  const ways = {
    "that stops in order": async (server: TestServer) => {
      await server.stop();
      await server.start();
    },
    "that is killed": (server: TestServer) => server.crash(),
  };
  for (const [how, restart] of Object.entries(ways)) {
    testWith()(`${how}, with its regions, claims and leases, and its TTL begins anew`, async () => {
      await using server = await lendServer();
      const { session, own, built, claim, lease } = await settle(server, longTtlMs);
      await using holder = await Holder.start(server, session.id);
      const stopped = Date.now();
      await restart(server);
      await holder.says("closed");
      const back = await server.api.call<Session>("GET", `/v1/sessions/${session.id}`);
      expect(back).toEqual({ ...session, expires_at: back.expires_at });
      expect(Date.parse(back.expires_at ?? "")).toBeGreaterThanOrEqual(stopped + longTtlMs);
      for (const region of [own, built]) {
        expect(await server.api.get(region.id)).toMatchObject({
          state: "open",
          name: region.name,
          session: session.id,
        });
      }
      expect(await server.api.call<Claim>("POST", claimPath, { session: session.id, key: "k" })).toEqual(claim);
      expect((await server.api.problem("POST", "/v1/regions", { name: "built", byte_size: 1, ttl_ms: 1 })).code).toBe(
        "name-taken",
      );
      const { items } = await server.api.call<{ items: Lease[] }>("GET", `/v1/regions/${own.id}/leases`);
      expect(items).toEqual([{ ...lease, expires_at: items[0]?.expires_at ?? "" }]);
      expect(Date.parse(items[0]?.expires_at ?? "")).toBeGreaterThanOrEqual(stopped + longTtlMs);
      expect(await server.api.stats()).toMatchObject({ sessions: 1, claims: 1, leases: 1 });
      await using _ = await Holder.start(server, session.id);
    });

    testWith()(`${how}, but not for longer than its TTL if nobody comes back`, async () => {
      await using server = await lendServer();
      const { session, own, built } = await settle(server, shortTtlMs, ({ id }) => holdSession(server, id));
      await restart(server);
      await untilEnded(server, session);
      for (const { id } of [own, built]) await server.api.untilGone(id);
      expect(await server.api.stats()).toMatchObject({ sessions: 0, claims: 0, leases: 0, pools: [{ used_bytes: 0 }] });
    });
  }

  testWith()("and a lease by request goes on keeping a region that was deleted before", async () => {
    await using server = await lendServer();
    const { id } = await server.api.create({ byte_size: 1, ttl_ms: longTtlMs });
    const lease = await server.api.call<Lease>("POST", `/v1/regions/${id}/leases`, { ttl_ms: longTtlMs });
    await server.api.delete(id);
    await server.crash();
    expect(await server.api.get(id)).toMatchObject({ state: "draining", leases: 1, drain: { waits_for: "lease" } });
    await server.api.call("DELETE", `/v1/leases/${lease.id}`);
    await server.api.untilGone(id);
  });
});

testWith()("a server that stops tells the holders with 1001, so that they come back", async () => {
  await using server = await lendServer();
  const { id } = await open(server, longTtlMs);
  await using holder = await Holder.start(server, id);
  await server.stop();
  await holder.says("closed 1001");
  await server.start();
});
