/** What a caller sees, and what it is told of what it may not see: lists, events, sums, failures, streams. */

import { describe, expect, test } from "bun:test";
import { MiB } from "../../src/memory/limits.ts";
import type { SocketProtocol } from "../../src/routes/environment.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { type EventFrame, readServerSentEvents } from "../harness/event-frame.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { claimName, openSession } from "./support/sessions.ts";

const line = (name: string, role: string, more: object = {}) => ({ name, role, token: tokenOf(name), ...more });
const lines = [
  line("ops", "admin"),
  line("trainer", "worker"),
  line("held", "worker", { models: ["llama"] }),
  line("dashboard", "reader"),
];

/** A test's body with the model `llama`, and one thing of each kind by `ops` in the model `default`. */
function withCallers(use: (app: TestApp) => Promise<void>): () => Promise<void> {
  return withApp(
    async (app) => {
      as(app, "ops");
      await app.register("llama");
      await use(app);
    },
    { tokens: lines },
  );
}

function as(app: TestApp, name: string): TestApp {
  app.token = tokenOf(name);
  return app;
}

async function idsOf(app: TestApp, path: string): Promise<string[]> {
  const { items } = await app.ok<{ items: { id?: string; name: string }[] }>(200, "GET", path);
  return items.map(({ id, name }) => id ?? name);
}

describe("lists and sums", () => {
  test(
    "of regions and models have in them what is in the caller's models",
    withCallers(async (app) => {
      const other = await app.create({ name: "weights" });
      const { id } = await as(app, "held").create({ model: "llama", name: "weights" });
      expect(await idsOf(app, "/v1/regions")).toEqual([id]);
      expect(await idsOf(app, "/v1/regions?name=weights&model=llama")).toEqual([id]);
      expect(await idsOf(app, "/v1/models")).toEqual(["llama"]);
      expect(await app.stats()).toMatchObject({ models: 1, regions: { open: 1 } });
      await app.refused("forbidden", "GET", "/v1/regions?model=default");
      await app.refused("region-not-found", "GET", `/v1/regions/${other.id}`);
      expect(await idsOf(as(app, "dashboard"), "/v1/regions")).toEqual([other.id, id]);
      expect(await app.stats()).toMatchObject({ models: 2, regions: { open: 2 } });
    }),
  );

  test(
    "of sessions, claims and leases have the caller's own, and an administrator's all",
    withCallers(async (app) => {
      const { id: region } = await app.create();
      const session = await openSession(app);
      await claimName(app, session);
      await app.ok(201, "POST", `/v1/regions/${region}/leases`, { ttl_ms: 60_000 });
      const own = await openSession(as(app, "trainer"));
      expect(own.created_by).toBe("trainer");
      expect(await idsOf(app, "/v1/sessions")).toEqual([own.id]);
      expect(await app.stats()).toMatchObject({ sessions: 1, claims: 0, leases: 0 });
      await app.refused("session-not-found", "GET", `/v1/regions?session=${session.id}`);
      expect(await idsOf(as(app, "ops"), "/v1/sessions")).toEqual([session.id, own.id]);
      expect(await app.stats()).toMatchObject({ sessions: 2, claims: 1, leases: 1 });
    }),
  );

  test(
    "of what was made before there were tokens are an administrator's to give away",
    withCallers(async (app) => {
      const { id } = await app.create();
      const region = app.store.books.region(id);
      Object.assign(region, { createdBy: null });
      const { detail } = await as(app, "trainer").refused("forbidden", "DELETE", `/v1/regions/${id}`);
      expect(detail).toContain("is an administrator's");
      await as(app, "ops").remove(id);
    }),
  );
});

describe("a failure", () => {
  test(
    "names nobody else's sessions to a worker, and all of them to an administrator",
    withCallers(async (app) => {
      const session = await openSession(app);
      await app.create({ byte_size: 64 * MiB, session: session.id });
      const large = { byte_size: 600 * MiB, ttl_ms: 60_000 };
      expect((await app.refused("pool-full", "POST", "/v1/regions", large)).holders).toHaveLength(1);
      const { holders } = await as(app, "trainer").refused("pool-full", "POST", "/v1/regions", large);
      expect(holders).toBeUndefined();
    }),
  );

  test(
    "is the same for a model that is not there and for one that the caller may not use",
    withCallers(async (app) => {
      as(app, "held");
      const answers = [];
      for (const model of ["default", "nobody"]) {
        const { detail } = await app.refused("forbidden", "POST", "/v1/regions", { model, byte_size: 1, ttl_ms: 1000 });
        answers.push(detail.replace(model, "MODEL"));
      }
      expect(new Set(answers).size).toBe(1);
      expect(answers[0]).toBe('Cannot answer: token "held" may not use model "MODEL", want one of "llama"');
    }),
  );

  test(
    "is the same for a region that is not there and for one that the caller may not see",
    withCallers(async (app) => {
      const { id } = await app.create();
      const unknown = `reg_${"a".repeat(26)}`;
      const [hidden, absent] = [id, unknown].map(async (each) => {
        const { detail, ...rest } = await as(app, "held").refused("region-not-found", "DELETE", `/v1/regions/${each}`);
        return { ...rest, detail: detail.replace(each, "ID"), request_id: undefined };
      });
      expect(await hidden).toEqual((await absent) as never);
    }),
  );
});

describe("what is another's is not taken over", () => {
  const replacing = { name: "weights", byte_size: 64, ttl_ms: 60_000, if_exists: "replace" };

  test(
    "by a session, a claim or a lease that the caller only knows the id of",
    withCallers(async (app) => {
      const session = await openSession(app);
      const { claim } = await claimName(app, session);
      as(app, "trainer");
      const body = { byte_size: 64, session: session.id };
      await app.refused("session-not-found", "POST", "/v1/regions", body);
      const built = { name: "weights", byte_size: 64, ttl_ms: 60_000, claim };
      await app.refused("claim-not-found", "POST", "/v1/regions", built);
      const { id } = await app.create();
      await app.refused("session-not-found", "POST", `/v1/regions/${id}/leases`, {
        ttl_ms: 60_000,
        session: session.id,
      });
    }),
  );

  test(
    "by replacing it, also where it got the name while the new one was being written",
    withCallers(async (app) => {
      const { id } = await as(app, "trainer").create({ name: "weights" });
      await app.seal(id);
      const { id: next } = await app.create(replacing);
      await as(app, "ops").remove(id);
      const { id: theirs } = await app.create({ name: "weights" });
      as(app, "trainer");
      const { detail } = await app.refused("forbidden", "POST", `/v1/regions/${next}/seal`);
      expect(detail).toContain(theirs);
      await app.refused("forbidden", "POST", "/v1/seal", { regions: [{ region: next }] });
      await as(app, "ops").remove(theirs);
      expect(await as(app, "trainer").seal(next)).toMatchObject({ name: "weights", created_by: "trainer" });
    }),
  );

  test(
    "by building it anew",
    withCallers(async (app) => {
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      const { id: session } = await openSession(as(app, "trainer"));
      await app.refused("forbidden", "POST", "/v1/models/default/regions/weights/claim", { session, rebuild: id });
    }),
  );

  test(
    "by evicting from models that the caller does not name",
    withCallers(async (app) => {
      const { id } = await app.create({ evictable: true });
      await app.seal(id);
      as(app, "held");
      await app.refused("forbidden", "POST", "/v1/evict", { bytes: MiB });
      await app.refused("forbidden", "POST", "/v1/evict", { bytes: MiB, model: "default" });
      await app.ok(200, "POST", "/v1/evict", { bytes: MiB, model: "llama" });
      expect((await as(app, "ops").get(id)).state).toBe("sealed");
    }),
  );
});

/** Those that a page has, by type and whose they are. */
async function readPage(app: TestApp, query = ""): Promise<EventFrame[]> {
  return (await app.ok<{ items: EventFrame[] }>(200, "GET", `/v1/events${query}`)).items;
}

function describeEvents(events: readonly EventFrame[]): unknown[] {
  return events.map(({ type, data }) => [type, (data as { created_by?: string }).created_by ?? null]);
}

describe("events", () => {
  test(
    "in pages are about the caller's models and own sessions, and say who did it by the token's name",
    withCallers(async (app) => {
      const { last } = app.store.events;
      const { id } = await app.create({ name: "weights" });
      await openSession(app);
      await openSession(as(app, "held"));
      const own = await app.create({ model: "llama" });
      await app.remove(own.id);
      as(app, "ops");
      await app.remove(id);
      const seen = await readPage(as(app, "held"), `?after=${last}`);
      expect(describeEvents(seen)).toEqual([
        ["tensord.session.opened", "held"],
        ["tensord.region.allocated", "held"],
        ["tensord.region.draining", "held"],
        ["tensord.region.deleted", "held"],
      ]);
      expect(seen.at(-1)?.data).toMatchObject({ actor: "held" });
      expect((await readPage(as(app, "ops"), `?after=${last}`)).at(-1)?.data).toMatchObject({ actor: "ops" });
      expect(await readPage(as(app, "dashboard"), `?after=${last}&types=tensord.session`)).toEqual([]);
      await as(app, "held").refused("forbidden", "GET", "/v1/events?model=default");
    }),
  );

  test(
    "in streams are the same, and the stream ends when its token is taken away",
    withCallers(async (app) => {
      const headers = { accept: "text/event-stream", authorization: `Bearer ${tokenOf("held")}` };
      const response = await app.app.fetch(new Request("http://localhost/v1/events", { headers }), {});
      const frames: EventFrame[] = [];
      const reading = (async () => {
        if (response.body !== null) for await (const frame of readServerSentEvents(response.body)) frames.push(frame);
      })();
      await app.create();
      await app.create({ model: "llama" });
      await until("an event came", () => frames.length === 2);
      expect(frames.map(({ type }) => type)).toEqual(["tensord.stream.opened", "tensord.region.allocated"]);
      expect(frames[1]?.data).toMatchObject({ model: "llama" });
      app.tokensFile?.rewrite(lines.filter(({ name }) => name !== "held"));
      await reading;
      expect(app.store.feeder.size).toBe(0);
      await app.refused("unauthorized", "GET", "/v1/events", undefined, { headers });
    }),
  );

  test(
    "over WebSockets are the same, and both sockets close when their token is taken away",
    withCallers(async (app) => {
      const { id } = await openSession(as(app, "held"));
      const sockets: { readonly sent: string[]; readonly closed: number[] }[] = [];
      for (const path of ["/v1/events/ws", `/v1/sessions/${id}/hold`]) {
        const sent: string[] = [];
        const closed: number[] = [];
        const upgrade = (protocol: SocketProtocol) =>
          protocol.open({ send: (text) => sent.push(text), close: (code) => closed.push(code) });
        const headers = { upgrade: "websocket", authorization: `Bearer ${tokenOf("held")}` };
        await app.app.fetch(new Request(`http://localhost${path}`, { headers }), { upgrade });
        sockets.push({ sent, closed });
      }
      await as(app, "ops").create();
      await app.create({ model: "llama" });
      await until("an event came", () => sockets[0]?.sent.length === 2);
      expect(JSON.parse(sockets[0]?.sent[1] ?? "")).toMatchObject({ data: { model: "llama" } });
      expect(app.store.books.session(id).holds).toBe(1);
      app.tokensFile?.rewrite(lines.filter(({ name }) => name !== "held"));
      expect(sockets.map(({ closed }) => closed)).toEqual([[1008], [1008]]);
    }),
  );
});
