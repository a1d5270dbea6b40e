/** What is told of sessions, and that the events of one session alone can be followed in every way. */

import { describe, expect, test } from "bun:test";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { Hold } from "./support/hold.ts";
import { unknownSession } from "./support/requests.ts";
import { claimName, endSession, openSession, type Session, shortTtlMs, untilGone } from "./support/sessions.ts";
import { withTcp } from "./support/socket.ts";

interface Frame {
  readonly type: string;
  readonly subject?: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A session with a region that it owns and one that it builds, and beside them what is another's and what is nobody's. */
async function provoke(app: TestApp): Promise<Session> {
  const [session, other] = [await openSession(app, { name: "followed" }), await openSession(app)];
  const { claim } = await claimName(app, session);
  const built = await app.create({ name: "weights", claim, persist: true });
  await app.create({ session: session.id });
  await app.create({ session: other.id });
  await app.create();
  await app.seal(built.id);
  await app.ok(200, "PATCH", `/v1/regions/${built.id}`, { labels: { job: "nightly" } });
  await endSession(app, other);
  await endSession(app, session);
  return session;
}

/** What `provoke` tells of the followed session. What is sealed under a claim is the session's no more. */
const told = [
  "tensord.session.opened",
  "tensord.region.allocated",
  "tensord.region.allocated",
  "tensord.region.draining",
  "tensord.region.deleted",
  "tensord.session.ended",
];

async function listEvents(app: TestApp, query: string): Promise<readonly Frame[]> {
  return (await app.ok<{ items: Frame[] }>(200, "GET", `/v1/events?${query}`)).items;
}

const typesOf = (frames: readonly Frame[]) => frames.map(({ type }) => type);
const ofStream = ({ type }: Frame) => type.startsWith("tensord.stream.");

describe("a session tells", () => {
  test(
    "that it was opened and ended, as it is then, why, and what went with it",
    withApp(async (app) => {
      const session = await openSession(app, { name: "trainer", client: { pid: 7 } });
      const { storage } = await app.create({ session: session.id });
      await endSession(app, session);
      const [opened, ended, ...rest] = await listEvents(app, "types=tensord.session.");
      expect(rest).toEqual([]);
      expect(opened).toMatchObject({ type: "tensord.session.opened", subject: session.id });
      expect(opened?.data).toEqual(session);
      expect(ended).toMatchObject({ type: "tensord.session.ended", subject: session.id });
      expect(ended?.data).toEqual({
        ...session,
        used_bytes: 0,
        reason: "request",
        regions: 1,
        freed_bytes: Math.ceil(storage.byte_size / storage.page_size) * storage.page_size,
      });
    }),
  );

  test(
    "by which of the three ways it ended",
    withTcp(async ({ app, url }) => {
      const [asked, expired, held] = [
        await openSession(app),
        await openSession(app, { ttl_ms: shortTtlMs }),
        await openSession(app),
      ];
      await endSession(app, asked);
      (await Hold.open(url, held)).close();
      await untilGone(app, `/v1/sessions/${held.id}`);
      const frames = await until("three ends are told", async () => {
        const told = await listEvents(app, "types=tensord.session.ended");
        return told.length >= 3 && told;
      });
      expect(frames.map(({ subject, data }) => [subject, data.reason])).toEqual([
        [asked.id, "request"],
        [held.id, "hold"],
        [expired.id, "ttl"],
      ]);
    }),
  );

  test(
    "of its regions' end that the session was the reason, which one, and by which request it ended, if by one",
    withApp(async (app) => {
      const [asked, over] = [await openSession(app), await openSession(app, { ttl_ms: shortTtlMs })];
      const first = await app.create({ session: asked.id });
      const headers = { "x-request-id": "nightly-7" };
      await app.request("DELETE", `/v1/sessions/${asked.id}`, undefined, { headers });
      const second = await app.create({ session: over.id });
      await untilGone(app, `/v1/sessions/${over.id}`);
      const frames = await listEvents(app, "types=tensord.region.deleted");
      expect(frames.map(({ subject, data }) => [subject, data.reason, data.session, data.actor])).toEqual([
        [first.id, "session", asked.id, "nightly-7"],
        [second.id, "session", over.id, null],
      ]);
    }),
  );
});

describe("the events of one session", () => {
  test(
    "are listed",
    withApp(async (app) => {
      const { id } = await provoke(app);
      expect(typesOf(await listEvents(app, `session=${id}`))).toEqual(told);
      const ended = await listEvents(app, `session=${id}&types=tensord.session.ended`);
      expect(ended).toMatchObject([{ subject: id, data: { name: "followed" } }]);
      expect(await listEvents(app, `session=${id}&model=llama`)).toEqual([]);
    }),
  );

  test(
    "that never was are none, and what is no session's id is refused",
    withApp(async (app) => {
      const { id } = await provoke(app);
      expect(await listEvents(app, `session=${unknownSession}`)).toEqual([]);
      for (const session of ["x", id.slice("ses_".length), id.replace("ses_", "reg_")]) {
        await app.refused("validation-failed", "GET", `/v1/events?session=${session}`);
      }
    }),
  );

  test(
    "are streamed as Server-Sent Events",
    withTcp(async ({ app, url }) => {
      const { id } = await provoke(app);
      const abort = new AbortController();
      const headers = { accept: "text/event-stream", "last-event-id": String(app.store.events.floor) };
      const response = await fetch(`${url}/v1/events?session=${id}`, { headers, signal: abort.signal });
      let text = "";
      const reading = (async () => {
        for await (const bytes of response.body ?? []) text += Buffer.from(bytes).toString();
      })().catch(() => {});
      const frames = () => [...text.matchAll(/^data: (.+)$/gm)].map(([, data = ""]) => JSON.parse(data) as Frame);
      await until("the end is told", () => frames().some(({ type }) => type === "tensord.session.ended"));
      expect(typesOf(frames().filter((frame) => !ofStream(frame)))).toEqual(told);
      abort.abort();
      await reading;
    }),
  );

  test(
    "are sent over the WebSocket",
    withTcp(async ({ app, url }) => {
      const { id } = await provoke(app);
      const query = `session=${id}&after=${app.store.events.floor}`;
      const socket = new WebSocket(`${url.replace("http:", "ws:")}/v1/events/ws?${query}`);
      const frames: Frame[] = [];
      socket.onmessage = ({ data }) => frames.push(JSON.parse(data));
      await until("the end is told", () => frames.some(({ type }) => type === "tensord.session.ended"));
      expect(typesOf(frames.filter((frame) => !ofStream(frame)))).toEqual(told);
      socket.close();
    }),
  );
});
