/** What each type of event says, provoked by the request or the accident that it tells of: the envelope, the data, the order. */

import { describe, expect, test } from "bun:test";
import { unlinkSync, writeFileSync } from "node:fs";
import type { Model, Region } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { checkFrame, type EventFrame } from "../harness/event-frame.ts";

/** Everything that was told since `after`. */
async function readEvents(app: TestApp, after: number): Promise<EventFrame[]> {
  const page = await app.ok<{ items: EventFrame[] }>(200, "GET", `/v1/events?after=${after}&limit=1000`);
  for (const frame of page.items) checkFrame(frame);
  return page.items;
}

/** What `act` told. */
async function during(app: TestApp, act: () => Promise<unknown>): Promise<EventFrame[]> {
  const after = app.store.events.last;
  await act();
  return readEvents(app, after);
}

const typesOf = (events: readonly EventFrame[]) => events.map(({ type }) => type);

/** A region as its events have it: without tensors, but with their number. */
function toFacts({ tensors, ...facts }: Region) {
  return { ...facts, last_used_at: expect.any(String), tensor_count: tensors.length };
}

const tensors = [
  { name: "w", dtype: "F32", shape: [2, 3] },
  { name: "b", dtype: "BF16", shape: [] },
];

describe("an event", () => {
  test(
    "is a CloudEvent whose members are these and no others",
    withApp(async (app) => {
      const before = Date.now();
      const [event] = await during(app, () => app.create({ name: "weights" }));
      expect(event).toEqual({
        specversion: "1.0",
        id: String(app.store.events.last),
        source: `/tensord/${app.instance}`,
        type: "tensord.region.allocated",
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        subject: expect.stringMatching(/^reg_[a-z2-7]{26}$/),
        datacontenttype: "application/json",
        dataschema: "urn:tensord:event-data:tensord.region.allocated",
        tensordepoch: String(app.store.epoch),
        data: expect.any(Object),
      });
      expect(Date.parse(event?.time ?? "")).toBeWithin(before, Date.now() + 1);
      expect(Number.isSafeInteger(Number(event?.id))).toBeTrue();
    }),
  );
});

describe("of a region", () => {
  test(
    "allocated and sealed have the descriptor as the request was answered",
    withApp(async (app) => {
      const answers: Region[] = [];
      const events = await during(app, async () => {
        const region = await app.create({ name: "weights", tensors, labels: { job: "a\tb\n\u{1F600}" } });
        answers.push(region, await app.seal(region.id, { checksum: true }));
      });
      expect(typesOf(events)).toEqual(["tensord.region.allocated", "tensord.region.sealed"]);
      expect(events.map(({ data }) => data)).toEqual(answers.map(toFacts));
      expect(events.map(({ subject }) => subject)).toEqual(answers.map(({ id }) => id));
      expect(events[0]?.data.tensor_count).toBe(2);
    }),
  );

  test(
    "changed has what the PATCH answered",
    withApp(async (app) => {
      const { id } = await app.create();
      let answer: Region | undefined;
      const events = await during(app, async () => {
        answer = await app.ok<Region>(200, "PATCH", `/v1/regions/${id}`, { labels: { a: "1" } });
      });
      expect(typesOf(events)).toEqual(["tensord.region.changed"]);
      expect(events[0]?.data).toEqual(toFacts(answer as Region));
    }),
  );

  test(
    "draining and deleted have the reason and who asked",
    withApp(async (app) => {
      const region = await app.create({ name: "weights" });
      const headers = { "x-request-id": "nightly-7" };
      const events = await during(app, () => app.request("DELETE", `/v1/regions/${region.id}`, undefined, { headers }));
      expect(typesOf(events)).toEqual(["tensord.region.draining", "tensord.region.deleted"]);
      for (const { data, subject } of events) {
        expect(subject).toBe(region.id);
        expect(data).toMatchObject({ reason: "request", actor: "nightly-7", name: null, tensor_count: 1 });
        expect(data).not.toHaveProperty("tensors");
      }
      expect(events.map(({ data }) => data.state)).toEqual(["draining", "deleted"]);
    }),
  );

  test(
    "the end of a TTL is the reason, and there is no actor",
    withApp(async (app) => {
      const after = app.store.events.last;
      await app.create({ ttl_ms: 1 });
      const events = await until("it is deleted", async () => {
        const all = await readEvents(app, after);
        return all.length === 3 && all;
      });
      expect(typesOf(events).slice(1)).toEqual(["tensord.region.draining", "tensord.region.deleted"]);
      for (const { data } of events.slice(1)) expect(data).toMatchObject({ reason: "ttl", actor: null });
    }),
  );

  test(
    "a replacement is sealed under the name first, then the old one drains and goes",
    withApp(async (app) => {
      const old = await app.create({ name: "weights" });
      const next = await app.create({ name: "weights", if_exists: "replace" });
      const events = await during(app, () => app.seal(next.id));
      expect(events.map(({ type, subject }) => [type, subject])).toEqual([
        ["tensord.region.sealed", next.id],
        ["tensord.region.draining", old.id],
        ["tensord.region.deleted", old.id],
      ]);
      expect(events[0]?.data).toMatchObject({ name: "weights", pending_name: null });
      expect(events[0]?.data).not.toHaveProperty("reason");
      for (const { data } of events.slice(1)) expect(data).toMatchObject({ reason: "replaced", name: null });
    }),
  );

  test(
    "an allocation that is refused, and one that is attached, tell nothing",
    withApp(async (app) => {
      await app.create({ name: "weights" });
      const events = await during(app, async () => {
        await app.refused("name-taken", "POST", "/v1/regions", { name: "weights", byte_size: 64, ttl_ms: 1000 });
        const body = { name: "weights", byte_size: 64, ttl_ms: 1000, if_exists: "attach" };
        await app.ok(200, "POST", "/v1/regions", body);
      });
      expect(typesOf(events)).toEqual([]);
    }),
  );

  test(
    "relinked has the cause: a name that was unlinked, or a foreign file in its place",
    withApp(async (app) => {
      const region = await app.create({ name: "weights" });
      for (const [cause, damage] of [
        ["unlinked", () => unlinkSync(region.storage.path)],
        [
          "foreign-file",
          () => {
            unlinkSync(region.storage.path);
            writeFileSync(region.storage.path, "not ours");
          },
        ],
      ] as const) {
        const events = await during(app, async () => {
          damage();
          await app.get(region.id);
        });
        expect(events.at(-1)).toMatchObject({
          type: "tensord.region.relinked",
          subject: region.id,
          data: { ...toFacts(region), cause },
        });
      }
      app.warnings.length = 0;
    }),
  );

  test(
    "lost says that its bytes are gone, and so is its name",
    withApp(async (app) => {
      const region = await app.create({ name: "weights" });
      const events = await during(app, async () => {
        unlinkSync(`/dev/shm/tensord.${app.instance}/keep/${region.id.slice("reg_".length)}`);
        unlinkSync(region.storage.path);
        await app.request("GET", `/v1/regions/${region.id}`);
      });
      expect(events).toMatchObject([
        {
          type: "tensord.region.lost",
          subject: region.id,
          data: { state: "deleted", name: null, former_name: "weights", tensor_count: 1 },
        },
      ]);
      expect(events[0]?.data).not.toHaveProperty("reason");
    }),
  );
});

describe("of a model", () => {
  test(
    "registered, changed and unregistered have the model as it was answered, but for its workers",
    withApp(async (app) => {
      const answers: Model[] = [];
      const events = await during(app, async () => {
        answers.push(await app.register("llama", 10_000_000));
        answers.push(await app.ok<Model>(200, "PATCH", "/v1/models/llama", { memory_limit_bytes: 20_000_000 }));
        await app.ok(200, "DELETE", "/v1/models/llama");
      });
      expect(typesOf(events)).toEqual([
        "tensord.model.registered",
        "tensord.model.changed",
        "tensord.model.unregistered",
      ]);
      const facts: unknown[] = answers.map(({ workers: _, ...rest }) => rest);
      expect(events.slice(0, 2).map(({ data }) => data)).toEqual(facts as EventFrame["data"][]);
      expect(events.map(({ subject }) => subject)).toEqual(["llama", "llama", "llama"]);
      expect(events[2]?.data).toMatchObject({ name: "llama", regions: 0 });
    }),
  );

  test(
    "unregistered with its regions: each of them goes in its own events",
    withApp(async (app) => {
      await app.register("llama");
      const made = [await app.create({ model: "llama" }), await app.create({ model: "llama" })];
      const events = await during(app, () => app.ok(200, "DELETE", "/v1/models/llama?drain=true"));
      const sorted = (of: readonly (string | undefined)[]) => [...of].toSorted();
      for (const type of ["tensord.region.draining", "tensord.region.deleted"]) {
        const of = events.filter((event) => event.type === type).map(({ subject }) => subject);
        expect(sorted(of)).toEqual(sorted(made.map(({ id }) => id)));
      }
      expect(events.filter(({ type }) => type === "tensord.model.unregistered").length).toBe(1);
      expect(events.length).toBe(5);
    }),
  );
});
