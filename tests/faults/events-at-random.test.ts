/**
 * Subscribers that come and go at random while regions do, on a server that is stopped, or killed, again and again. Nobody
 * misses or repeats an event, whatever its channel and filter; only a crash is a gap, and it is told once.
 */

import { afterAll, expect } from "bun:test";
import { EventChurn } from "../harness/event-churn.ts";
import type { EventFrame } from "../harness/event-frame.ts";
import { EventPages } from "../harness/event-pages.ts";
import { Wanderer } from "../harness/event-wanderer.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsRoom, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { roundsOf } from "../harness/rounds.ts";
import { TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { channels } from "../harness/subscriber.ts";

const churns = 4;
const lives = roundsOf("events-at-random");
const filters = [
  {},
  {},
  { types: "tensord.region.deleted,tensord.region.al" },
  { model: "default", types: "tensord.region.s" },
  { model: "nobody" },
];

afterAll(assertNothingLeft);

class World {
  readonly random = new Random();
  readonly server = new TestServer();
  readonly pages = new EventPages();
  readonly churns: readonly EventChurn[];
  readonly wanderers: readonly Wanderer[];
  crashes = 0;

  constructor() {
    console.log(`TEST_SEED=${this.random.seed}`);
    const next = () => new Random(this.random.integer(0, 2 ** 31));
    const target = `unix://${this.server.instance.socket}`;
    this.churns = Array.from({ length: churns }, (_, index) => new EventChurn(`c${index}`, next()));
    this.wanderers = filters.flatMap((filter) =>
      channels.map((channel) => new Wanderer(target, channel, filter, next())),
    );
  }

  /** One life of the server, from its start to its end. @param crashShare how probable a SIGKILL is. */
  async live(crashShare: number): Promise<void> {
    const { server, random, pages } = this;
    await server.start();
    await pages.read(server.api);
    const all = Promise.all([
      ...this.churns.map((churn) => churn.work(server.api)),
      ...this.wanderers.map((wanderer) => wanderer.wander(this.crashes)),
    ]);
    const enough = this.#promised() + random.integer(1, 150);
    const ended = until("enough was asked for", () => this.#promised() >= enough, 60_000).then(async () => {
      const isCrash = random.isTrue(crashShare);
      expect(await server.kill(isCrash ? "SIGKILL" : "SIGTERM")).toBe(isCrash ? "SIGKILL" : 0);
      if (isCrash) this.crashes += 1;
    });
    await Promise.all([ended, all]);
  }

  #promised(): number {
    return this.churns.reduce((sum, { promised }) => sum + promised.length, 0);
  }

  /** The last life: everybody gets what is still to be had. @returns every event that anybody heard of. */
  async end(): Promise<Map<number, EventFrame>> {
    const { server, pages } = this;
    await server.start();
    await until("what ends by itself has ended", async () => (await server.api.stats()).regions.draining === 0);
    await pages.read(server.api);
    const heard = [...pages.frames, ...this.wanderers.flatMap(({ frames }) => frames)];
    const told = new Map(
      heard.filter(({ type }) => !type.startsWith("tensord.stream.")).map((frame) => [Number(frame.id), frame]),
    );
    for (const wanderer of this.wanderers) {
      const wanted = [...told.values()].filter((event) => wanderer.passes(event)).map(({ id }) => Number(id));
      await wanderer.catchUp(this.crashes, String(Math.max(...wanted, 0)));
    }
    for (const wanderer of this.wanderers) wanderer.check(told);
    expect(this.wanderers.reduce((sum, { visits }) => sum + visits, 0)).toBeGreaterThan(filters.length * 2 * 3);
    return told;
  }
}

testWith(needsRoom(256 * 2 ** 20))(
  `nobody misses or repeats an event over ${lives} orderly restarts, and each promise is one event`,
  async () => {
    const world = new World();
    await using server = world.server;
    for (let round = 0; round < lives; round++) await world.live(0);
    const told = await world.end();
    const { frames } = world.pages;
    const [first] = frames;
    expect(
      frames.map(({ id }) => Number(id)),
      "the ring has no holes",
    ).toEqual(frames.map((_, index) => Number(first?.id) + index));
    expect(told.size, "nobody heard of an event that the ring has not").toBe(frames.length);
    const lines = frames
      .map(({ type, subject }) => `${type} ${subject}`)
      .filter((line) => !line.startsWith("tensord.region.changed"));
    expect(lines.length, "nothing happens twice to a region").toBe(new Set(lines).size);
    const known = new Set(lines);
    for (const { promised } of world.churns) expect(promised.filter((line) => !known.has(line))).toEqual([]);
    console.log(`${frames.length} events, ${world.wanderers.reduce((sum, { visits }) => sum + visits, 0)} connections`);
    expect(server.isRunning).toBeTrue();
  },
);

testWith(needsRoom(256 * 2 ** 20))(
  `over ${lives} ends of which some are crashes, each crash is one gap, and behind it nothing is missed`,
  async () => {
    const world = new World();
    await using server = world.server;
    server.log.expect(/^tensord\.region\.(lost|relinked)$/);
    for (let round = 0; round < lives; round++) await world.live(round === 0 ? 1 : 0.5);
    const told = await world.end();
    expect(world.crashes).toBeGreaterThan(0);
    console.log(`${told.size} events, ${world.crashes} crashes`);
  },
);
