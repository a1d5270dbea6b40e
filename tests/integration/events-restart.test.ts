/** The stream over the end of a server: how subscribers learn of it, and what they find with the next one. */

import { afterAll, describe, expect } from "bun:test";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { positionOf } from "../harness/event-frame.ts";
import { EventPages, readLastId } from "../harness/event-pages.ts";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { roundsOf } from "../harness/rounds.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { within } from "../harness/server-wait.ts";
import { channels, Subscriber } from "../harness/subscriber.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

const hour = 3_600_000;
const rounds = roundsOf("events-restart");

async function live({ api }: TestServer): Promise<string> {
  const { id } = await api.create({ byte_size: 10, ttl_ms: hour });
  await api.delete(id);
  return readLastId(api);
}

function range(first: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => String(first + index));
}

describe("a server that stops", () => {
  testWith()("ends a hundred open streams at once, says so, and leaves without waiting for them", async () => {
    await using server = await startServer({ env: { TENSORD_PORT: "0" } });
    const places = [await server.readUrl(), `unix://${server.instance.socket}`];
    const opening = Array.from({ length: 100 }, (_, index) =>
      Subscriber.open(places[index % 2] ?? "", channels[(index >> 1) % 2] ?? "websocket"),
    );
    const subscribers = await Promise.all(opening);
    const last = await live(server);
    for (const subscriber of subscribers) await subscriber.untilId(last);
    await server.stop();
    const ends = await within("every stream ends", Promise.all(subscribers.map(({ ended }) => ended)));
    expect(ends).toEqual(subscribers.map((_, index) => ((index >> 1) % 2 === 0 ? 1001 : 0)));
    for (const { lastId, frames } of subscribers) expect([lastId, frames.length]).toEqual([last, 4]);
  });

  testWith()("keeps its events for the next, whose numbers go on where they ended", async () => {
    await using server = await startServer();
    const place = `unix://${server.instance.socket}`;
    const before = await readLastId(server.api);
    const last = await live(server);
    await server.stop();
    await server.start();
    for (const channel of channels) {
      await using subscriber = await Subscriber.open(place, channel, { after: before });
      const next = await live(server);
      await subscriber.untilId(next);
      expect(subscriber.frames.map(positionOf)).toEqual(range(Number(before), Number(next) - Number(before) + 1));
      expect(subscriber.gaps).toEqual([]);
    }
    const kept = new EventPages();
    await kept.read(server.api);
    const epochs = (frames: typeof kept.frames) => new Set(frames.map(({ tensordepoch }) => tensordepoch)).size;
    expect(epochs(kept.frames.filter(({ id }) => Number(id) <= Number(last)))).toBe(1);
    expect(epochs(kept.frames)).toBe(2);
  });

  testWith()("tells its last events to those who come back, as it told its first", async () => {
    await using server = await startServer();
    const { id } = await server.api.create({ byte_size: 40 * 2 ** 20, ttl_ms: hour });
    const before = await readLastId(server.api);
    const subscriber = await Subscriber.open(`unix://${server.instance.socket}`, "websocket");
    // Freed in the background, so that the stop is in the middle of it.
    const deleting = server.api.delete(id).catch(() => undefined);
    await subscriber.untilId(String(Number(before) + 1));
    await server.stop();
    await Promise.all([deleting, subscriber.ended]);
    await server.start();
    await using again = await Subscriber.open(`unix://${server.instance.socket}`, "websocket", {
      after: subscriber.lastId,
    });
    await again.untilId(String(Number(before) + 2));
    const all = [...subscriber.events, ...again.events];
    expect(all.map(({ type }) => type)).toEqual(["tensord.region.draining", "tensord.region.deleted"]);
    expect(all.map((event) => event.subject)).toEqual([id, id]);
  });
});

describe("after a crash", () => {
  testWith()("who resumes is told of one gap, lists again, and goes on live", async () => {
    await using server = await startServer();
    const place = `unix://${server.instance.socket}`;
    const last = await live(server);
    await server.crash();
    for (const channel of channels) {
      await using subscriber = await Subscriber.open(place, channel, { after: last });
      const next = await live(server);
      await subscriber.untilId(next);
      const [opened, gap, ...events] = subscriber.frames;
      expect(opened).toMatchObject({ type: "tensord.stream.opened", data: { after: last } });
      expect(gap).toMatchObject({ type: "tensord.stream.gap", data: { requested_after: last } });
      const from = Number(gap?.data.after);
      expect(from).toBeGreaterThan(Number(last) - 1);
      expect(gap?.data.first_available).toBe(String(from + 1));
      expect(events.map(({ id }) => id)).toEqual(range(from + 1, Number(next) - from));
    }
  });

  testWith()("what the start found is told behind the gap", async () => {
    await using server = await startServer();
    server.log.expect(/^tensord\.region\.(lost|relinked)$/);
    const lost = await server.api.create({ name: "lost", byte_size: 10, persist: true });
    const unlinked = await server.api.create({ name: "unlinked", byte_size: 10, persist: true });
    const last = await readLastId(server.api);
    await server.kill("SIGKILL");
    rmSync(lost.storage.path);
    rmSync(join(server.instance.keep, tokenOf(lost.id)));
    rmSync(unlinked.storage.path);
    await server.start();
    await using subscriber = await Subscriber.open(`unix://${server.instance.socket}`, "websocket", { after: last });
    await subscriber.untilId(await readLastId(server.api));
    expect(subscriber.gaps.length).toBe(1);
    expect(subscriber.events.map(({ type, subject }) => [type, subject]).toSorted()).toEqual([
      ["tensord.region.lost", lost.id],
      ["tensord.region.relinked", unlinked.id],
    ]);
  });
});

testWith(needsPython)(
  "an end carries the name that the region had, over a start, and whatever became of its file",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    server.log.expect(/^tensord\.region\.lost$/);
    const [mapped, freed, lost] = [
      await server.api.create({ name: "mapped", byte_size: 10, persist: true }),
      await server.api.create({ name: "freed", byte_size: 10, persist: true }),
      await server.api.create({ name: "lost", byte_size: 10, persist: true }),
    ];
    for (const region of [mapped, freed]) {
      await worker.attach(region.id, region);
      expect((await server.api.delete(region.id)).state).toBe("draining");
    }
    const last = await readLastId(server.api);
    await server.stop();
    // As if it had died just before the row could go, and as if somebody had tidied up.
    rmSync(join(server.instance.keep, tokenOf(freed.id)));
    rmSync(lost.storage.path);
    rmSync(join(server.instance.keep, tokenOf(lost.id)));
    await server.start();
    await worker.detach(mapped.id);
    await server.api.untilGone(mapped.id);
    await using subscriber = await Subscriber.open(`unix://${server.instance.socket}`, "websocket", { after: last });
    await subscriber.untilId(await readLastId(server.api));
    expect(subscriber.events.map(({ type, subject, data }) => [type, subject, data.former_name]).toSorted()).toEqual(
      [
        ["tensord.region.deleted", freed.id, "freed"],
        ["tensord.region.deleted", mapped.id, "mapped"],
        ["tensord.region.lost", lost.id, "lost"],
      ].toSorted(),
    );
  },
);

describe("a number is never given twice", () => {
  testWith()(`over ${rounds} kills and stops`, async () => {
    await using server = await startServer();
    const seen = new Map<string, string>();
    let last = 0;
    for (let round = 0; round < rounds; round++) {
      await using subscriber = await Subscriber.open(`unix://${server.instance.socket}`, "websocket");
      const newest = await live(server);
      await subscriber.untilId(newest);
      for (const { id, tensordepoch } of subscriber.events) {
        expect(seen.has(id), `${id} was given by ${seen.get(id)} and by ${tensordepoch}`).toBeFalse();
        seen.set(id, tensordepoch);
        expect(Number(id)).toBeGreaterThan(last);
        last = Number(id);
      }
      if (round % 3 === 0) await server.stop();
      else await server.kill("SIGKILL");
      await server.start();
    }
    expect(seen.size).toBe(3 * rounds);
  });

  testWith()("even when the journal was lost with what it says about them", async () => {
    await using server = await startServer();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const last = await live(server);
      await server.kill(signal);
      for (const name of readdirSync(server.instance.store)) rmSync(join(server.instance.store, name));
      await server.start();
      await using subscriber = await Subscriber.open(`unix://${server.instance.socket}`, "websocket", { after: last });
      const next = await live(server);
      await subscriber.untilId(next);
      expect(subscriber.gaps.length).toBe(1);
      for (const { id } of subscriber.events) expect(Number(id)).toBeGreaterThan(Number(last));
      expect(subscriber.events.length).toBe(3);
    }
  });

  testWith()("nor when what was kept for the next server is damaged", async () => {
    await using server = await startServer();
    for (const text of ["", "garbage", "\0".repeat(4096), "17"]) {
      const last = await live(server);
      await server.stop();
      writeFileSync(join(server.instance.store, "events"), text);
      await server.start();
      await using subscriber = await Subscriber.open(`unix://${server.instance.socket}`, "websocket", { after: last });
      await subscriber.untilId(await live(server));
      expect(subscriber.gaps.length, JSON.stringify(text)).toBe(1);
      for (const { id } of subscriber.events) expect(Number(id), JSON.stringify(text)).toBeGreaterThan(Number(last));
    }
  });
});
