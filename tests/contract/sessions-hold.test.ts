/** The hold socket: while it is open no TTL runs, and who closed it decides whether the session ends at once. */

import { describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import { holdSession } from "../../src/memory/sessions/sessions.ts";
import type { StoreEvent } from "../../src/memory/state/store-event.ts";
import { checkProblem, toAnswer } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { Hold } from "./support/hold.ts";
import { lease } from "./support/lease.ts";
import { unknownSession } from "./support/requests.ts";
import { endSession, getSession, openSession, type Session, shortTtlMs, untilGone } from "./support/sessions.ts";
import { RawClient, withTcp, withUnix } from "./support/socket.ts";

/** So long that no test sees its end. */
const longTtl = { ttl_ms: limits.sessionTtlMaxMs };

function untilHeld(app: TestApp, session: Session, held: boolean): Promise<Session> {
  return until(`it is ${held ? "held" : "let go"}`, async () => {
    const now = await getSession(app, session);
    return now.held === held ? now : undefined;
  });
}

/** The reason with which sessions end, in order. */
function listenForEnds(app: TestApp): string[] {
  const reasons: string[] = [];
  app.store.listen((event: StoreEvent) => {
    if (event.type === "tensord.session.ended") reasons.push(event.reason);
  });
  return reasons;
}

/** A session is gone a turn or more before its end is told. */
function untilTold(reasons: readonly string[]): Promise<readonly string[]> {
  return until("an end is told", () => reasons.length > 0 && reasons);
}

/** A handshake by hand, so that its connection can be cut without a word. */
function toHandshake({ id }: Session): string {
  return [
    `GET /v1/sessions/${id}/hold HTTP/1.1`,
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13\r\n\r\n",
  ].join("\r\n");
}

describe("a session that is held", () => {
  test(
    "has no TTL, and gets none by a renewal",
    withTcp(async ({ app, url }) => {
      const session = await openSession(app, { ttl_ms: shortTtlMs });
      const witness = await openSession(app, { ttl_ms: shortTtlMs });
      using hold = await Hold.open(url, session);
      expect(await untilHeld(app, session, true)).toMatchObject({ held: true, expires_at: null });
      const renewed = await app.ok<Session>(200, "POST", `/v1/sessions/${session.id}/renew`);
      expect(renewed).toMatchObject({ held: true, expires_at: null });
      await untilGone(app, `/v1/sessions/${witness.id}`);
      expect(await getSession(app, session)).toMatchObject({ held: true, expires_at: null });
      expect(hold.frames).toEqual([]);
    }),
  );

  test(
    "speaks no subprotocol, whatever is offered",
    withUnix(async ({ app, path }) => {
      const session = await openSession(app, { ttl_ms: shortTtlMs });
      using client = new RawClient(path);
      await client.send(
        toHandshake(session).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: mqtt, cloudevents.json\r\n\r\n"),
      );
      const { status, headers } = await client.answer();
      expect([status, headers.get("sec-websocket-protocol")]).toEqual([101, null]);
    }),
  );

  for (const [way, withServer] of [
    ["TCP", withTcp],
    ["the Unix socket", withUnix],
  ] as const) {
    test(
      `ends at once when its peer closes over ${way}`,
      withServer(async ({ app, url, path }) => {
        const ends = listenForEnds(app);
        const session = await openSession(app, longTtl);
        const region = await app.create({ name: "weights", session: session.id });
        const hold = await Hold.open(path === "" || url.startsWith("http") ? url : `ws+unix://${path}:`, session);
        await untilHeld(app, session, true);
        hold.close();
        await untilGone(app, `/v1/sessions/${session.id}`);
        await untilGone(app, `/v1/regions/${region.id}`);
        expect(await untilTold(ends)).toEqual(["hold"]);
      }),
    );
  }

  test(
    "ends at once when its peer is gone without a word",
    withUnix(async ({ app, path }) => {
      const ends = listenForEnds(app);
      const session = await openSession(app, longTtl);
      using client = new RawClient(path);
      await client.send(toHandshake(session));
      await untilHeld(app, session, true);
      client.destroy();
      await untilGone(app, `/v1/sessions/${session.id}`);
      expect(await untilTold(ends)).toEqual(["hold"]);
    }),
  );

  test(
    "ends with the last of several holds",
    withTcp(async ({ app, url }) => {
      const session = await openSession(app, longTtl);
      const first = await Hold.open(url, session);
      const second = await Hold.open(url, session);
      await until("both hold it", () => app.store.books.session(session.id).holds === 2);
      first.close();
      await until("one is gone", () => app.store.books.session(session.id).holds === 1);
      expect(await getSession(app, session)).toMatchObject({ held: true, expires_at: null });
      second.close();
      await untilGone(app, `/v1/sessions/${session.id}`);
    }),
  );

  test(
    "leaves a sealed region that is still leased its name",
    withTcp(async ({ app, url }) => {
      const session = await openSession(app, longTtl);
      const { id, storage } = await app.create({ name: "weights", session: session.id });
      await app.seal(id);
      using _ = lease(storage.path);
      (await Hold.open(url, session)).close();
      await untilGone(app, `/v1/sessions/${session.id}`);
      expect(await app.get(id)).toMatchObject({ state: "sealed", name: "weights", session: null });
    }),
  );

  test(
    "may be ended by request, and its hold then ends nothing",
    withTcp(async ({ app, url }) => {
      const ends = listenForEnds(app);
      const session = await openSession(app, longTtl);
      const hold = await Hold.open(url, session);
      await untilHeld(app, session, true);
      expect(await endSession(app, session)).toMatchObject({ state: "deleted" });
      hold.close();
      await hold.closed;
      const other = await openSession(app);
      expect((await getSession(app, other)).id).toBe(other.id);
      expect(ends).toEqual(["request"]);
    }),
  );
});

describe("a hold that the server closes", () => {
  const badFrames: readonly (readonly [what: string, frame: object | string])[] = [
    ["that is no JSON", "hello"],
    ["of nothing", ""],
    ["without a region", {}],
    ["with a number for the region", { attach: 1 }],
    ["that attaches and detaches", { attach: "reg_a", detach: "reg_a" }],
    ["with a word for the flag", { attach: "reg_a", writable: "yes" }],
    ["with a flag on a detach", { detach: "reg_a", writable: true }],
    ["with one member more", { attach: "reg_a", path: "/dev/shm/x" }],
    ["of an array", []],
    ["of bytes that are no text", Uint8Array.of(0xff, 0xfe)],
  ];
  for (const [what, frame] of badFrames) {
    test(
      `for a frame ${what} is closed with 1008, and the TTL runs`,
      withTcp(async ({ app, url }) => {
        const session = await openSession(app, longTtl);
        const hold = await Hold.open(url, session);
        await untilHeld(app, session, true);
        hold.send(frame);
        expect(await hold.closed).toBe(1008);
        const { expires_at } = await untilHeld(app, session, false);
        expect(Date.parse(expires_at ?? "")).toBeGreaterThan(Date.now() + limits.sessionTtlMaxMs - 60_000);
      }),
    );
  }

  test(
    "for a frame that is too large lets the TTL run",
    withTcp(async ({ app, url }) => {
      const session = await openSession(app, longTtl);
      const hold = await Hold.open(url, session);
      await untilHeld(app, session, true);
      hold.send(JSON.stringify({ attach: "a".repeat(limits.socketFrameBytes) }));
      await hold.closed;
      expect((await untilHeld(app, session, false)).expires_at).not.toBeNull();
    }),
  );

  test(
    "because it stops is closed with 1001, and the TTL runs",
    withTcp(async ({ app, url }) => {
      const ends = listenForEnds(app);
      const session = await openSession(app, longTtl);
      const hold = await Hold.open(url, session);
      await untilHeld(app, session, true);
      app.store.stop();
      expect(await hold.closed).toBe(1001);
      await until("it is let go", () => app.store.books.session(session.id).holds === 0);
      expect(app.store.books.session(session.id).expiresAt).toBeGreaterThan(Date.now());
      expect(ends).toEqual([]);
    }),
  );

  test(
    "ends the session with the TTL if nobody holds or renews it again",
    withTcp(async ({ app, url }) => {
      const ends = listenForEnds(app);
      const session = await openSession(app, { ttl_ms: shortTtlMs });
      const hold = await Hold.open(url, session);
      hold.send("hello");
      expect(await hold.closed).toBe(1008);
      await untilGone(app, `/v1/sessions/${session.id}`);
      expect(await untilTold(ends)).toEqual(["ttl"]);
    }),
  );

  test(
    "may be followed by another one, and then no TTL runs",
    withTcp(async ({ app, url }) => {
      const session = await openSession(app, { ttl_ms: shortTtlMs });
      const first = await Hold.open(url, session);
      first.send("hello");
      const { expires_at } = await untilHeld(app, session, false);
      using _ = await Hold.open(url, session);
      await untilHeld(app, session, true);
      await until("its TTL would be over", () => Date.now() > Date.parse(expires_at ?? "") + 100);
      expect(await getSession(app, session)).toMatchObject({ held: true, expires_at: null });
    }),
  );
});

describe("a hold is refused", () => {
  const ask = async (url: string, headers: Record<string, string>) => {
    const answer = await toAnswer(await fetch(url, { headers }));
    checkProblem(answer);
    return answer.body;
  };
  const upgrade = {
    upgrade: "websocket",
    connection: "Upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
  };

  test(
    "to a request that is no WebSocket handshake",
    withTcp(async ({ app, url }) => {
      const { id } = await openSession(app);
      expect(await ask(`${url}/v1/sessions/${id}/hold`, {})).toMatchObject({ code: "upgrade-required" });
    }),
  );

  test(
    "of a session that has ended or never was",
    withTcp(async ({ app, url }) => {
      const session = await openSession(app);
      await endSession(app, session);
      for (const id of [session.id, unknownSession, "x"]) {
        expect(await ask(`${url}/v1/sessions/${id}/hold`, upgrade)).toMatchObject({ code: "session-not-found" });
      }
    }),
  );

  test(
    "to a web page",
    withTcp(async ({ app, url }) => {
      const { id } = await openSession(app);
      const headers = { ...upgrade, origin: "https://evil.example" };
      expect(await ask(`${url}/v1/sessions/${id}/hold`, headers)).toMatchObject({ code: "forbidden" });
      expect((await getSession(app, { id } as Session)).held).toBeFalse();
    }),
  );
});

test(
  "a hold that is released twice is released once",
  withApp(async (app) => {
    const { id } = await openSession(app, longTtl);
    const session = app.store.books.session(id);
    const release = holdSession(app.store, session);
    holdSession(app.store, session);
    release("server");
    release("peer");
    expect(session.holds).toBe(1);
    expect(session.end).toBeNull();
  }),
);
