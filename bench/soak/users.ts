/** Users of the soak without a process of their own: each does what there is to do with the API, in no order. */

import type { Instance } from "../../tests/harness/instance.ts";
import type { Random } from "../../tests/harness/instance-random.ts";
import type { TestServer } from "../../tests/harness/server.ts";
import { type NewRegion, Refused, type Region, type ServerApi } from "../../tests/harness/server-api.ts";
import type { Tally } from "./judge.ts";

const KiB = 1024;
/** What a full or contended server may say. Anything else that fails is a finding. */
const expected = new Set<string>([
  "name-taken",
  "name-claimed",
  "pool-full",
  "model-limit-exceeded",
  "session-quota-exceeded",
  "deadline-exceeded",
  "model-not-found",
  "model-exists",
  "region-not-found",
  "region-draining",
  "region-busy",
  "region-sealed",
  "region-has-writers",
  "session-not-found",
  "claim-not-found",
  "lease-not-found",
  "cancelled",
]);

interface Together {
  readonly server: TestServer;
  readonly random: Random;
  readonly tally: Tally;
  readonly signal: AbortSignal;
}

/** One user, who goes on until `signal` aborts. */
export async function runUser({ server, random, tally, signal }: Together): Promise<void> {
  const user = new SoakUser(server, random);
  while (!signal.aborted) {
    try {
      await random.pick(user.actions)();
      tally.requests += 1;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (!expected.has(error.problem.code)) tally.unexpected.push(error.message);
    }
    // All users together must leave the workers a core.
    await Bun.sleep(random.integer(0, 20));
  }
}

interface Named {
  readonly id: string;
}

class SoakUser {
  /** Whatever it can do. */
  readonly actions: readonly (() => Promise<unknown>)[];
  readonly #api: ServerApi;
  readonly #instance: Instance;
  readonly #random: Random;

  constructor({ api, instance }: TestServer, random: Random) {
    this.#api = api;
    this.#instance = instance;
    this.#random = random;
    this.actions = [
      () => this.#allocate({ on_full: "evict", evictable: true, ttl_ms: random.integer(100, 5000) }),
      () => this.#allocate({ on_full: "wait", deadline_ms: 500, linger_ms: random.pick([0, 100, 1000]) }),
      () =>
        this.#allocate({
          name: `n${random.integer(0, 5)}`,
          if_exists: random.pick(["attach", "replace"]),
          ttl_ms: 2000,
        }),
      () => this.#live(),
      () => this.#live(),
      () => this.#useModel(),
      () => this.#look(),
      () => this.#download(),
      () => this.#follow(),
      () => this.#abort(),
      () => api.call("POST", "/v1/evict", { bytes: random.integer(1, 20_000) * KiB }),
    ];
  }

  /** Allocates, seals mostly, and leaves the end to the owner. */
  async #allocate(request: Omit<NewRegion, "byte_size">): Promise<Region> {
    const byte_size = this.#random.pick([0, 4, 60, 900, 5000, 20_000]) * KiB;
    const region = await this.#api.create({ byte_size, ...request });
    if (region.state === "open" && this.#random.isTrue(0.8)) {
      await this.#api.seal(region.id, { checksum: this.#random.isTrue(0.3) });
    }
    return region;
  }

  /** A session that is renewed and not held, with quota, claim and leases; half of them end by their TTL. */
  async #live(): Promise<void> {
    const [api, random] = [this.#api, this.#random];
    const { id } = await api.call<Named>("POST", "/v1/sessions", {
      ttl_ms: 1000,
      quota_bytes: 30_000 * KiB,
      name: "soak",
    });
    const region = await this.#allocate({ session: id });
    await api.call("POST", `/v1/regions/${region.id}/leases`, { ttl_ms: 1000, session: id });
    const lease = await api.call<Named>("POST", `/v1/regions/${region.id}/leases`, { ttl_ms: 1000 });
    const name = `u${random.integer(0, 9)}`;
    const { claim } = await api.call<{ claim: string | null }>("POST", `/v1/models/default/regions/${name}/claim`, {
      session: id,
    });
    if (claim !== null) await this.#allocate({ name, claim, linger_ms: 200 });
    await api.call("POST", `/v1/sessions/${id}/renew`);
    await api.call("PATCH", `/v1/regions/${region.id}`, { labels: { a: String(random.integer(0, 9)) } });
    if (random.isTrue(0.5)) await api.call("DELETE", `/v1/leases/${lease.id}`);
    if (random.isTrue(0.5)) await api.call("DELETE", `/v1/sessions/${id}`);
  }

  async #useModel(): Promise<void> {
    const [api, random] = [this.#api, this.#random];
    const model = `m${random.integer(0, 2)}`;
    await api.call("POST", "/v1/models", { name: model, memory_limit_bytes: 8000 * KiB });
    await this.#allocate({ model, ttl_ms: 10_000 });
    await api.call("PATCH", `/v1/models/${model}`, { memory_limit_bytes: null });
    await api.call("DELETE", `/v1/models/${model}?drain=true`);
  }

  async #look(): Promise<void> {
    await this.#api.list();
    for (const path of ["sessions", "models", "events?limit=100", "capabilities"])
      await this.#api.call("GET", `/v1/${path}`);
    const metrics = await fetch("http://localhost/metrics", { unix: this.#instance.socket });
    await metrics.text();
  }

  /** Reads a region's bytes, and half of the time leaves in the middle. */
  async #download(): Promise<void> {
    const region = await this.#allocate({ ttl_ms: 2000 });
    const response = await fetch(`http://localhost/v1/regions/${region.id}/data`, { unix: this.#instance.socket });
    if (this.#random.isTrue(0.5)) await response.bytes();
    else await response.body?.cancel();
  }

  /** Follows the events for a moment, over either kind of stream. */
  async #follow(): Promise<void> {
    const [socketPath, random] = [this.#instance.socket, this.#random];
    if (random.isTrue(0.5)) {
      const socket = new WebSocket(`ws+unix://${socketPath}:/v1/events/ws?types=tensord.session`);
      const { promise, resolve } = Promise.withResolvers<void>();
      socket.onclose = () => resolve();
      await Bun.sleep(random.integer(1, 300));
      socket.close();
      await promise;
      return;
    }
    const aborter = new AbortController();
    const headers = { accept: "text/event-stream" };
    const response = await fetch("http://localhost/v1/events", {
      unix: socketPath,
      headers,
      signal: aborter.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    await Bun.sleep(random.integer(1, 300));
    aborter.abort();
    await reader?.read().catch(() => {});
  }

  /** A client that goes away while the server allocates for it. */
  async #abort(): Promise<void> {
    const aborter = new AbortController();
    const asked = fetch("http://localhost/v1/regions", {
      unix: this.#instance.socket,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ byte_size: 20_000 * KiB, ttl_ms: 1000 }),
      signal: aborter.signal,
    }).catch(() => {});
    await Bun.sleep(this.#random.integer(0, 10));
    aborter.abort();
    await asked;
  }
}
