/**
 * SIGKILL (and now and then SIGTERM) at random times under concurrent load, again and again on the same instance. What a
 * client got a 2xx for must be there; what it asked for without an answer may be there whole, or not at all.
 */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks, checkRows, modes } from "../harness/instance-check.ts";
import { type Content, readContent, writeContent } from "../harness/instance-content.ts";
import { ForeignFiles } from "../harness/instance-foreign.ts";
import { needsRoom, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { TestServer } from "../harness/server.ts";
import { type NewRegion, NoAnswer, Refused, type Region, type ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const rounds = 30;
const clients = 6;
const regionsPerClient = 8;
const hour = 3_600_000;

afterAll(assertNothingLeft);

/** A region as its client knows it. While `pending` is set, the request of that kind has no answer yet. */
interface Known {
  region: Region;
  content: Content;
  pending: "seal" | "delete" | "labels" | null;
  /** The labels that the pending PATCH asks for. */
  asked: string;
}

/** One client: one request at a time, on regions and names of its own, and a memory of what it was promised. */
class Client {
  readonly #name: string;
  readonly #random: Random;
  readonly known = new Map<string, Known>();
  /** Ids whose deletion was acknowledged. */
  readonly deleted = new Set<string>();
  /** The creation without an answer, if any. */
  creating: NewRegion | null = null;
  acknowledged = 0;

  constructor(name: string, random: Random) {
    this.#name = name;
    this.#random = random;
  }

  /** Works until a request has no answer. */
  async work(api: ServerApi): Promise<void> {
    for (;;) {
      try {
        await this.#step(api);
        this.acknowledged += 1;
      } catch (error) {
        if (error instanceof NoAnswer) return;
        if (!(error instanceof Refused) || error.problem.code !== "shutting-down") throw error;
        return this.#giveUp();
      }
    }
  }

  /** An answer that says that nothing happened, because the server stops. */
  #giveUp(): void {
    this.creating = null;
    for (const known of this.known.values()) known.pending = null;
  }

  async #step(api: ServerApi): Promise<void> {
    const random = this.#random;
    const all = [...this.known.values()];
    if (all.length === 0 || (all.length < regionsPerClient && random.isTrue(0.4))) return this.#create(api);
    const one = random.pick(all);
    if (one.region.state === "open" && random.isTrue(0.5)) return this.#seal(api, one);
    if (random.isTrue(0.4)) return this.#label(api, one);
    return this.#delete(api, one);
  }

  async #create(api: ServerApi): Promise<void> {
    const random = this.#random;
    const byte_size = random.isTrue(0.2) ? random.integer(2 ** 20, 3 * 2 ** 20) : random.integer(0, 40_000);
    const name = `${this.#name}-${random.integer(0, 2)}`;
    const request: NewRegion = random.isTrue(0.3)
      ? { byte_size, ttl_ms: hour }
      : { name, byte_size, persist: true, if_exists: "replace" };
    this.creating = request;
    const region = await api.create(request);
    writeContent(region, random.integer(1, 1e6));
    this.known.set(region.id, { region, content: readContent(region.storage.path), pending: null, asked: "" });
    this.creating = null;
  }

  async #seal(api: ServerApi, one: Known): Promise<void> {
    one.pending = "seal";
    const region = await api.seal(one.region.id, { checksum: this.#random.isTrue(0.5) });
    const replaced = this.holderOf(one.region.pending_name);
    if (replaced !== undefined) this.#forget(replaced);
    this.settle(one, region);
  }

  async #label(api: ServerApi, one: Known): Promise<void> {
    one.asked = String(this.#random.integer(0, 1e9));
    one.pending = "labels";
    this.settle(one, await api.call<Region>("PATCH", `/v1/regions/${one.region.id}`, { labels: { value: one.asked } }));
  }

  async #delete(api: ServerApi, one: Known): Promise<void> {
    one.pending = "delete";
    const { state } = await api.delete(one.region.id);
    expect(state, "nobody maps it").toBe("deleted");
    this.#forget(one);
  }

  #forget({ region }: Known): void {
    this.known.delete(region.id);
    this.deleted.add(region.id);
  }

  settle(one: Known, region: Region): void {
    one.region = region;
    one.content = { ...one.content, mode: region.state === "sealed" ? modes.sealed : modes.open };
    one.pending = null;
  }

  /** Which of the client's regions holds the name. */
  holderOf(name: string | null): Known | undefined {
    return name === null ? undefined : [...this.known.values()].find(({ region }) => region.name === name);
  }

  /** After a restart: holds every promise against what is there, and learns what became of the request under way. */
  async check(api: ServerApi, all: ReadonlyMap<string, Region>): Promise<void> {
    for (const id of this.deleted) expect(all.has(id), `${id} was deleted`).toBeFalse();
    this.deleted.clear();
    this.#learnReplaced(all);
    for (const one of [...this.known.values()]) {
      const now = all.get(one.region.id);
      if (now === undefined) {
        expect(one.pending, `${one.region.id} was acknowledged and is gone`).toBe("delete");
        this.known.delete(one.region.id);
      } else {
        this.#checkStanding(one, now);
        if (now.checksum !== null) expect((await api.verify(now.id)).ok).toBeTrue();
      }
    }
  }

  /** A seal without an answer may have taken a name over, and then its holder is gone by right. */
  #learnReplaced(all: ReadonlyMap<string, Region>): void {
    for (const one of this.known.values()) {
      if (one.pending !== "seal" || all.get(one.region.id)?.state !== "sealed") continue;
      const holder = this.holderOf(one.region.pending_name);
      if (holder === undefined) continue;
      expect(all.has(holder.region.id), "the name has one holder").toBeFalse();
      this.known.delete(holder.region.id);
    }
  }

  #checkStanding(one: Known, now: Region): void {
    const { region, pending } = one;
    // A request for deletion that was under way when the server was killed either began or did not.
    const changed = now.revision !== region.revision;
    expect(now.revision - region.revision, `${region.id}: at most the request under way changed it`).toBeOneOf(
      pending === null ? [0] : [0, 1],
    );
    const sealed = changed && pending === "seal";
    const labels = changed && pending === "labels" ? { ...region.labels, value: one.asked } : region.labels;
    expect(lasting(now)).toEqual({
      ...lasting(region),
      labels,
      revision: now.revision,
      ...(sealed
        ? {
            state: "sealed",
            name: region.name ?? region.pending_name,
            pending_name: null,
            sealed_at: now.sealed_at,
            checksum: now.checksum,
          }
        : {}),
    });
    this.settle(one, now);
    expect(readContent(now.storage.path), `${region.id} has its bytes`).toEqual(one.content);
  }
}

function lasting(region: Region) {
  const { last_used_at: _, ...rest } = region;
  return { ...rest, checksum: rest.checksum };
}

testWith(needsRoom(256 * 2 ** 20))(
  `an instance survives ${rounds} kills at random times under the load of ${clients} clients`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    await using server = new TestServer();
    // A kill between a region's row and its name: the start gives it the name, and tells that like any other relink.
    server.log.expect(/^tensord\.region\.relinked$/);
    using foreign = new ForeignFiles(server.instance);
    const all = Array.from(
      { length: clients },
      (_, index) => new Client(`c${index}`, new Random(random.integer(0, 2 ** 31))),
    );
    for (let round = 0; round < rounds; round++) {
      await server.start();
      await until("what was half done is freed", async () => (await server.api.stats()).regions.draining === 0);
      await checkRound(server, all, foreign);
      const working = all.map((client) => client.work(server.api));
      const isOrderly = random.isTrue(0.2);
      await Bun.sleep(random.integer(5, 400));
      expect(await server.kill(isOrderly ? "SIGTERM" : "SIGKILL")).toBe(isOrderly ? 0 : "SIGKILL");
      await Promise.all(working);
    }
    await server.start();
    await until("what was half done is freed", async () => (await server.api.stats()).regions.draining === 0);
    await checkRound(server, all, foreign);
    const acknowledged = all.reduce((sum, client) => sum + client.acknowledged, 0);
    console.log(`${acknowledged} requests were acknowledged`);
    expect(acknowledged).toBeGreaterThan(rounds * clients);
    await server.stop();
    checkRows(server.instance);
    foreign.assertUntouched();
  },
  120_000,
);

async function checkRound(server: TestServer, clients: readonly Client[], foreign: ForeignFiles): Promise<void> {
  const regions = new Map((await checkBooks(server, foreign.names)).map((region) => [region.id, region]));
  for (const client of clients) await client.check(server.api, regions);
  const known = new Set(clients.flatMap((client) => [...client.known.keys()]));
  for (const region of regions.values()) if (!known.has(region.id)) adopt(region, clients);
  for (const client of clients) client.creating = null;
  foreign.assertUntouched();
}

/** A region that nobody was told of: it must be whole, and the creation that was under way must explain it. */
function adopt(region: Region, clients: readonly Client[]): void {
  const client = clients.find(
    ({ creating }) =>
      creating !== null &&
      (creating.name ?? null) === (region.name ?? region.pending_name) &&
      creating.byte_size === region.tensors[0]?.byte_size,
  );
  expect(client, `${region.id} was asked for`).toBeDefined();
  expect(region).toMatchObject({ state: "open", revision: 1 });
  if (client === undefined) return;
  client.creating = null;
  client.known.set(region.id, { region, content: readContent(region.storage.path), pending: null, asked: "" });
}
