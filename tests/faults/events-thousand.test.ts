/** A thousand subscribers of one server: each gets every event in order, and others are answered meanwhile. */

import { afterAll, expect } from "bun:test";
import { positionOf } from "../harness/event-frame.ts";
import { changeLabels } from "../harness/event-load.ts";
import { readLastId } from "../harness/event-pages.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { Subscriber } from "../harness/subscriber.ts";

const sockets = 900;
const streams = 100;
const eventCount = 200;

afterAll(assertNothingLeft);

testWith()(
  "a thousand subscribers all get 200 events in order, none lost, and other requests are answered meanwhile",
  async () => {
    await using server = await startServer();
    const place = `unix://${server.instance.socket}`;
    const { id } = await server.api.create({ byte_size: 10, ttl_ms: 3_600_000 });
    const before = await readLastId(server.api);
    await using open = new AsyncDisposableStack();
    const subscribers: Subscriber[] = [];
    // A hundred at a time, so that the socket's backlog does not overflow.
    for (let batch = 0; batch < (sockets + streams) / 100; batch++) {
      const channel = batch < sockets / 100 ? "websocket" : "server-sent-events";
      const opening = Array.from({ length: 100 }, () => Subscriber.open(place, channel));
      for (const subscriber of await Promise.all(opening)) subscribers.push(open.use(subscriber));
    }
    let answered = 0;
    for (let told = 0; told < eventCount; told += 20) {
      await changeLabels(server.instance.socket, id, 20);
      await server.api.get(id);
      await server.api.stats();
      answered += 2;
    }
    const last = await readLastId(server.api);
    expect(Number(last) - Number(before)).toBe(eventCount);
    const wanted = Array.from({ length: eventCount + 1 }, (_, index) => String(Number(before) + index));
    for (const subscriber of subscribers) {
      await subscriber.untilId(last, 60_000);
      expect(subscriber.frames.map(positionOf)).toEqual(wanted);
    }
    expect(subscribers.length).toBe(sockets + streams);
    expect(answered).toBe(20);
  },
);
