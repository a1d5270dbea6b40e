/** What the streams do that no page does: how they begin, are left, kept alive, and ended when nobody reads. */

import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import type { Environment, Socket, SocketProtocol } from "../../src/routes/environment.ts";
import { TestApp, until, withApp } from "../harness/app.ts";
import { type EventFrame, positionOf, readFrame, readServerSentEvents } from "../harness/event-frame.ts";
import { RawClient, withTcp, withUnix } from "./support/socket.ts";

type Bindings = Environment["Bindings"];

function follow(app: TestApp, query = "", headers: Readonly<Record<string, string>> = {}, bindings: Bindings = {}) {
  const init = { headers: { accept: "text/event-stream", ...headers } };
  return app.app.fetch(new Request(`http://localhost/v1/events${query}`, init), bindings);
}

/** Tells an event of about 400 bytes. */
function tell({ store }: TestApp, count = 1): void {
  for (let told = 0; told < count; told++)
    store.emit({ type: "tensord.model.changed", model: store.books.model("default") });
}

async function readFrames(response: Response, count: number): Promise<EventFrame[]> {
  const frames: EventFrame[] = [];
  if (response.body === null) throw new Error("no body");
  for await (const frame of readServerSentEvents(response.body)) {
    frames.push(frame);
    if (frames.length === count) break;
  }
  return frames;
}

describe("Server-Sent Events", () => {
  test(
    "begin with the time to wait before coming back, then with the place, in lines that any EventSource reads",
    withApp(async (app) => {
      const last = app.store.events.last;
      const response = await follow(app);
      tell(app);
      const reader = response.body?.getReader();
      let text = "";
      while (text.split("\n\n").length < 3) text += new TextDecoder().decode((await reader?.read())?.value);
      await reader?.cancel();
      expect(text).toMatch(new RegExp(`^retry: 1000\nid: ${last}\ndata: {.*}\n\nid: ${last + 1}\ndata: {.*}\n\n$`));
    }),
  );

  test(
    "resume after Last-Event-ID, which wins over `after`, and are refused for what is none",
    withApp(async (app) => {
      const first = app.store.events.last + 1;
      tell(app, 5);
      const headers = { "last-event-id": String(first + 2) };
      const frames = await readFrames(await follow(app, `?after=${first}`, headers), 3);
      expect(frames.map((frame) => Number(positionOf(frame)))).toEqual([first + 2, first + 3, first + 4]);
      expect((await follow(app, `?after=${first}`, { "last-event-id": "yesterday" })).status).toBe(422);
      expect(app.store.feeder.size).toBe(0);
    }),
  );

  test(
    "and pages say of themselves under ids of their own, which are no numbers and no positions",
    withApp(async (app) => {
      const first = app.store.events.last + 1;
      tell(app, 2);
      const read = async () => (await app.ok<{ items: EventFrame[] }>(200, "GET", "/v1/events?after=1")).items;
      const frames = await Promise.all(
        [first, first + 1, first, 1].map(async (after) => readFrames(await follow(app, `?after=${after}`), 1)),
      );
      const events = await read();
      const own = [...frames.flat(), ...events, ...(await read())].filter(({ type }) => type.includes(".stream."));
      expect(own.map(positionOf)).toEqual([first, first + 1, first, 1, first - 1, first - 1].map(String));
      expect(new Set(own.map(({ id }) => id)).size).toBe(own.length);
      for (const { id, source } of own) {
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
        expect(source).toBe(events[1]?.source ?? "");
        const { hint } = await app.refused("validation-failed", "GET", `/v1/events?after=${id}`);
        expect(hint).toContain("data.after");
      }
    }),
  );

  for (const [place, withServer] of [
    ["TCP", withTcp],
    ["the Unix socket", withUnix],
  ] as const) {
    test(
      `over ${place} leave nothing behind when their reader goes away`,
      withServer(async ({ app, url, path }) => {
        const target = path === "" ? Number(new URL(url).port) : path;
        for (const request of [
          "/v1/events HTTP/1.1\r\nAccept: text/event-stream",
          `/v1/events/ws HTTP/1.1\r\n${handshake}`,
        ]) {
          using client = new RawClient(target);
          await client.send(`GET ${request}\r\nHost: localhost:${typeof target === "number" ? target : 1}\r\n\r\n`);
          await until("it follows", () => app.store.feeder.size === 1);
          tell(app);
          client.destroy();
          await until("it is forgotten", () => app.store.feeder.size === 0);
        }
      }),
    );
  }

  test(
    "are none for HEAD, which leaves nothing open",
    withTcp(async ({ app, url }) => {
      const port = Number(new URL(url).port);
      using client = new RawClient(port);
      const head = "HEAD /v1/events HTTP/1.1\r\nAccept: text/event-stream";
      await client.send(`${head}\r\nHost: localhost:${port}\r\n\r\n`);
      const { status, headers } = await client.answer();
      expect([status, headers.get("content-type")]).toEqual([200, "text/event-stream"]);
      await until("nobody follows", () => app.store.feeder.size === 0);
    }),
  );
});

const handshake =
  "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/** A WebSocket as the routes see it, whose peer reads as little as it is told. */
class FakeSocket implements Socket {
  protocol: SocketProtocol | undefined;
  readonly frames: EventFrame[] = [];
  readonly closed: number[] = [];
  isReading = true;

  send(text: string): number {
    this.frames.push(readFrame(text));
    return this.isReading ? text.length : -1;
  }

  close(code: number): void {
    this.closed.push(code);
    this.protocol?.closed("peer");
  }

  static async open(app: TestApp): Promise<FakeSocket> {
    const socket = new FakeSocket();
    const upgrade = (protocol: SocketProtocol) => {
      socket.protocol = protocol;
      protocol.open(socket);
    };
    const request = new Request("http://localhost/v1/events/ws", { headers: { upgrade: "WebSocket" } });
    await app.app.fetch(request, { upgrade });
    return socket;
  }
}

/** A turn for whoever waits for one; fake timers leave `setImmediate` alone. */
async function turns(): Promise<void> {
  for (let count = 0; count < 50; count++) await new Promise<void>((resolve) => setImmediate(resolve));
}

describe("by the clock", () => {
  let app: TestApp;

  beforeEach(async () => {
    jest.useFakeTimers();
    app = await TestApp.open();
  });
  afterEach(async () => {
    jest.useRealTimers();
    await app.close();
    expect(app.mistakes).toEqual([]);
  });

  test("a comment goes every 15 s to those who read, and to no others", async () => {
    const response = await follow(app);
    const reader = response.body?.getReader();
    const read = async () => new TextDecoder().decode((await reader?.read())?.value);
    expect(await read()).toStartWith("retry: ");
    for (let count = 0; count < 3; count++) {
      jest.advanceTimersByTime(limits.eventKeepAliveMs);
      expect(await read()).toBe(": keep-alive\n\n");
    }
    tell(app);
    await turns();
    jest.advanceTimersByTime(limits.eventKeepAliveMs);
    expect(await read()).toStartWith("id: ");
    tell(app);
    expect(await read(), "no comment lay behind what was not read").toStartWith("id: ");
    await reader?.cancel();
  });

  test("a WebSocket that takes nothing for a minute is closed with 1013, and one that does is not", async () => {
    const [sleeping, slow, idle] = [await FakeSocket.open(app), await FakeSocket.open(app), await FakeSocket.open(app)];
    sleeping.isReading = false;
    slow.isReading = false;
    tell(app, 3);
    await turns();
    jest.advanceTimersByTime(limits.subscriberStallMs - 1);
    expect([sleeping.closed, slow.closed, idle.closed]).toEqual([[], [], []]);
    slow.protocol?.drain();
    await turns();
    jest.advanceTimersByTime(limits.subscriberStallMs / 10);
    expect([sleeping.closed, slow.closed, idle.closed]).toEqual([[1013], [], []]);
    expect([sleeping, slow, idle].map(({ frames }) => frames.length)).toEqual([2, 3, 4]);
    expect(app.store.feeder.size).toBe(2);
  });

  test("a stream that takes nothing for a minute is ended, and its connection given up", async () => {
    let endedSoon = 0;
    const response = await follow(app, "", {}, { endSoon: () => (endedSoon += 1) });
    const first = app.store.events.last + 1;
    tell(app, 1000);
    await turns();
    jest.advanceTimersByTime(limits.subscriberStallMs - 1);
    expect([endedSoon, app.store.feeder.size]).toEqual([0, 1]);
    jest.advanceTimersByTime(limits.subscriberStallMs / 10 + 1);
    expect([endedSoon, app.store.feeder.size]).toEqual([1, 0]);
    const [, ...events] = await readFrames(response, 10_000);
    expect(events.map(({ id }) => Number(id))).toEqual(events.map((_, index) => first + index));
    const queued = events.reduce((sum, event) => sum + JSON.stringify(event).length, 0);
    expect(queued).toBeWithin(limits.eventStreamBytes / 2, 2 * limits.eventStreamBytes);
  });

  test("a server that stops closes WebSockets with 1001 and ends streams", async () => {
    const socket = await FakeSocket.open(app);
    const response = await follow(app);
    app.store.stop();
    expect(socket.closed).toEqual([1001]);
    expect((await readFrames(response, 2)).map(({ type }) => type)).toEqual(["tensord.stream.opened"]);
    expect(app.store.feeder.size).toBe(0);
    expect((await follow(app)).status).toBe(503);
  });

  test("a WebSocket that speaks is closed with 1008", async () => {
    const socket = await FakeSocket.open(app);
    socket.protocol?.message("hello");
    expect(socket.closed).toEqual([1008]);
    expect(app.store.feeder.size).toBe(0);
  });
});
