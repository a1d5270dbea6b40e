/** Subscribers that stop reading while far more events pass than are kept: the server's memory stays flat, others get everything, and they wake to a gap. */

import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { type EventFrame, positionOf } from "../harness/event-frame.ts";
import { changeLabels } from "../harness/event-load.ts";
import { readLastId } from "../harness/event-pages.ts";
import { SleepingSubscriber } from "../harness/event-sleeper.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { patienceMs, until } from "../harness/server-wait.ts";
import { channels, Subscriber } from "../harness/subscriber.ts";

const eventCount = roundsOf("events-sleeping");
/** More than the ring keeps. The server's memory has its full size after these. */
const warmUpCount = 40_000;
/** Memory is looked at after this many. */
const sampledEvents = 2500;
const MiB = 2 ** 20;

afterAll(assertNothingLeft);

/** Resident memory; proc(5). */
function residentBytes({ pid }: TestServer): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

interface Passed {
  readonly events: number;
  /** The most memory that the server had meanwhile. */
  readonly mostBytes: number;
}

/** Lets `count` events pass, or, on a slow machine, some more than are kept, in about `longestMs`. */
async function pass(server: TestServer, region: string, count: number, longestMs = Infinity): Promise<Passed> {
  const samples: number[] = [];
  const begin = performance.now();
  let events = 0;
  const isEnough = () => events >= 1.25 * limits.keptEvents && performance.now() - begin > longestMs;
  while (events < count && !isEnough()) {
    await changeLabels(server.instance.socket, region, sampledEvents);
    events += sampledEvents;
    samples.push(residentBytes(server));
  }
  return { events, mostBytes: Math.max(...samples) };
}

function expectWhole(subscriber: Subscriber, before: string, events: number): void {
  expect(subscriber.gaps).toEqual([]);
  expect(subscriber.events.length).toBe(events);
  const broken = subscriber.events.findIndex(({ id }, index) => Number(id) !== Number(before) + 1 + index);
  expect(broken, "nothing is missed, repeated or out of order").toBe(-1);
}

testWith()(
  "the server's memory is flat while four subscribers sleep, others get everything, and those wake to one gap",
  async () => {
    await using server = await startServer({ env: { TENSORD_PORT: "0" } });
    const places = [await server.readUrl(), `unix://${server.instance.socket}`];
    const { id } = await server.api.create({ byte_size: 10, ttl_ms: 3_600_000 });
    // Events are written for who reads them first, and are kept as they were written: so somebody reads from the beginning.
    const reader = await Subscriber.open(places[0] ?? "", "websocket");
    const { mostBytes: awakeMost } = await pass(server, id, warmUpCount);
    await reader[Symbol.asyncDispose]();

    using sleeping = new DisposableStack();
    const before = await readLastId(server.api);
    const sleepers: SleepingSubscriber[] = [];
    for (const place of places) {
      for (const channel of channels) sleepers.push(sleeping.use(await SleepingSubscriber.open(place, channel)));
    }
    await using socket = await Subscriber.open(places[0] ?? "", "websocket");
    await using stream = await Subscriber.open(places[1] ?? "", "server-sent-events");
    // Who sleeps much longer is closed.
    const slept = await pass(server, id, eventCount, limits.subscriberStallMs / 3);
    const last = await readLastId(server.api);
    for (const awake of [socket, stream]) {
      await awake.untilId(last);
      expectWhole(awake, before, slept.events);
    }
    const growth = (slept.mostBytes - awakeMost) / MiB;
    console.log(`at most ${awakeMost / MiB} MiB while nobody slept, ${growth} MiB more while four did`);
    // What four had not read would be 50 MiB and more.
    expect(growth).toBeLessThan(40);

    for (const sleeper of sleepers) sleeper.wake();
    for (const sleeper of sleepers) {
      await until("it has caught up", () => sleeper.frames.at(-1)?.id === last);
      checkSleeper(sleeper, before, last);
    }
    await changeLabels(server.instance.socket, id, 10);
    const newest = await readLastId(server.api);
    for (const sleeper of sleepers) await until("it goes on live", () => sleeper.frames.at(-1)?.id === newest);
  },
  deadlineMsOf(eventCount, 15),
);

/** What it had before it slept, one gap, and everything that was kept when it woke. */
function checkSleeper({ frames }: SleepingSubscriber, before: string, last: string): void {
  const at = frames.findIndex(({ type }) => type === "tensord.stream.gap");
  const gap = frames[at];
  expect(gap?.data.requested_after).toBe(positionOf(frames[at - 1] as EventFrame));
  expect(frames.filter(({ type }) => type.startsWith("tensord.stream.")).length).toBe(2);
  const had = frames.slice(0, at).map((frame) => Number(positionOf(frame)));
  expect(had).toEqual(had.map((_, index) => Number(before) + index));
  const got = frames.slice(at + 1).map(({ id }) => Number(id));
  expect(got).toEqual(got.map((_, index) => Number(gap?.data.first_available) + index));
  expect(got.at(-1)).toBe(Number(last));
  // The ring and what the server had handed on, not more.
  expect(got.length).toBeLessThanOrEqual(limits.keptEvents);
  expect(got.length).toBeGreaterThan(limits.keptEvents / 2);
}

testWith()("a server that stops leaves in order, within its grace, though a subscriber sleeps", async () => {
  for (const channel of channels) {
    await using server = await startServer();
    const { id } = await server.api.create({ byte_size: 10, ttl_ms: 3_600_000 });
    using _sleeper = await SleepingSubscriber.open(`unix://${server.instance.socket}`, channel);
    await changeLabels(server.instance.socket, id, 2000);
    server.signal("SIGTERM");
    expect(await server.exited(limits.shutdownGraceMs + patienceMs)).toBe(0);
  }
});
