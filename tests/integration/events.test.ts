/** Following the events of a real server over each of its channels and places, and clients that do what they should not. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import { type RawAnswer, RawClient } from "../contract/support/socket.ts";
import type { Problem } from "../harness/answers.ts";
import { checkFrame, positionOf } from "../harness/event-frame.ts";
import { readLastId } from "../harness/event-pages.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until, within } from "../harness/server-wait.ts";
import { channels, Subscriber } from "../harness/subscriber.ts";

let server: TestServer;
let url: string;

beforeAll(async () => {
  server = await startServer({ env: { TENSORD_PORT: "0" } });
  url = await server.readUrl();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  assertNothingLeft();
});

/** Creates, seals and deletes a region: four events. @returns the last one's id. */
async function live(model = "default"): Promise<string> {
  const { id } = await server.api.create({ byte_size: 10, ttl_ms: 60_000, model });
  await server.api.seal(id);
  await server.api.delete(id);
  return readLastId(server.api);
}

const lifeTypes = ["allocated", "sealed", "draining", "deleted"].map((word) => `tensord.region.${word}`);

for (const place of ["TCP", "the Unix socket"]) {
  for (const channel of channels) {
    const target = () => (place === "TCP" ? url : `unix://${server.instance.socket}`);
    const open = (following = {}) => Subscriber.open(target(), channel, following);

    describe(`${channel} over ${place}`, () => {
      test("says first where it stands, then tells everything live", async () => {
        const before = await readLastId(server.api);
        await using subscriber = await open();
        const last = await live();
        await subscriber.untilId(last);
        const [opened, ...events] = subscriber.frames;
        expect(opened).toMatchObject({ type: "tensord.stream.opened", data: { after: before } });
        expect(events.map(({ type }) => type)).toEqual(lifeTypes);
        expect(events.map(({ id }) => Number(id))).toEqual([1, 2, 3, 4].map((offset) => Number(before) + offset));
        for (const frame of subscriber.frames) checkFrame(frame);
      });

      test("resumes after each of the frames that it had, without a repeat or a gap", async () => {
        const first = await readLastId(server.api);
        await live();
        const last = await live();
        for (let after = Number(first); after <= Number(last); after++) {
          await using subscriber = await open({ after: String(after) });
          await subscriber.untilId(last);
          const next = Array.from({ length: Number(last) - after }, (_, index) => String(after + 1 + index));
          expect(subscriber.frames.map(positionOf)).toEqual([String(after), ...next]);
        }
      });

      test("tells a filter's events alone, kept ones and new ones", async () => {
        const model = `m-${crypto.randomUUID().slice(0, 8)}`;
        const after = await readLastId(server.api);
        await server.api.call("POST", "/v1/models", { name: model });
        await live(model);
        await using subscriber = await open({
          after,
          model,
          types: "tensord.region.se,tensord.region.deleted,tensord.model.",
        });
        await live();
        const last = await live(model);
        await subscriber.untilId(last);
        const once = ["tensord.region.sealed", "tensord.region.deleted"];
        expect(subscriber.events.map(({ type }) => type)).toEqual(["tensord.model.registered", ...once, ...once]);
        for (const { data, type } of subscriber.events)
          expect(type.includes("model") ? data.name : data.model).toBe(model);
      });

      test("is told of a gap for what is not kept, and for what was never given, and goes on live", async () => {
        for (const after of ["1", String(Number.MAX_SAFE_INTEGER)]) {
          const before = await readLastId(server.api);
          await using subscriber = await open({ after });
          await until("a gap comes", () => subscriber.gaps.length === 1);
          const [opened, gap] = subscriber.frames;
          expect(opened).toMatchObject({ type: "tensord.stream.opened", data: { after } });
          expect(gap?.data.requested_after).toBe(after);
          expect(gap?.data.first_available).toBe(String(Number(gap?.data.after) + 1));
          const last = await live();
          await subscriber.untilId(last);
          const from = Number(after === "1" ? gap?.data.after : before);
          const ids = subscriber.events.map(({ id }) => Number(id));
          expect(ids).toEqual(Array.from({ length: Number(last) - from }, (_, index) => from + 1 + index));
          expect(subscriber.gaps.length).toBe(1);
        }
      });
    });
  }
}

/** A handshake, or what is none, sent as it is over TCP. `PORT` becomes the port. */
async function shakeHands(lines: readonly string[], path = "/v1/events/ws", method = "GET"): Promise<RawAnswer> {
  const { port } = new URL(url);
  using client = new RawClient(Number(port));
  await client.send(`${[`${method} ${path} HTTP/1.1`, ...lines].join("\r\n").replaceAll("PORT", port)}\r\n\r\n`);
  return await client.answer();
}

const handshake = [
  "Host: localhost:PORT",
  "Upgrade: websocket",
  "Connection: Upgrade",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
const without = (name: string, ...instead: string[]) => [
  ...handshake.filter((line) => !line.startsWith(name)),
  ...instead,
];

describe("a WebSocket is refused before it is one", () => {
  const evil = "http://evil.example";
  for (const [claim, lines, path, status, code] of [
    ["from a foreign origin", [...handshake, `Origin: ${evil}`], "", 403, "forbidden"],
    ["from a page without an origin", [...handshake, "Origin: null"], "", 403, "forbidden"],
    ["for a foreign host", without("Host", "Host: evil.example:PORT"), "", 403, "forbidden"],
    ["without an upgrade", without("Upgrade"), "", 426, "upgrade-required"],
    ["with an upgrade to something else", without("Upgrade", "Upgrade: h2c"), "", 426, "upgrade-required"],
    ["without a key", without("Sec-WebSocket-Key"), "", 426, "upgrade-required"],
    ["with a key that is none", without("Sec-WebSocket-Key", "Sec-WebSocket-Key: x"), "", 426, "upgrade-required"],
    ["after what is no id", handshake, "?after=yesterday", 422, "validation-failed"],
    ["after too long an id", handshake, `?after=${"9".repeat(17)}`, 422, "validation-failed"],
    ["after a number that no double holds", handshake, "?after=9007199254740993", 422, "validation-failed"],
    ["for what can be no model", handshake, "?model=.hidden", 422, "validation-failed"],
    ["for too many types", handshake, `?types=${"a,".repeat(limits.eventTypes)}a`, 422, "validation-failed"],
  ] as const) {
    test(claim, async () => {
      const answer = await shakeHands(lines, `/v1/events/ws${path}`);
      expect(answer.status).toBe(status);
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
      const problem = JSON.parse(answer.body) as Problem;
      expect(problem).toMatchObject({ code, status, detail: expect.stringMatching(/^Cannot .+: .+/) });
      expect(problem.hint).not.toBe("");
    });
  }

  test("when its version is none that there is", async () => {
    expect((await shakeHands(without("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"))).status).toBe(426);
  });

  test("by another method", async () => {
    expect((await shakeHands(handshake, "/v1/events/ws", "POST")).status).toBe(405);
  });

  test("and the same handshake without a fault is taken", async () => {
    for (const lines of [handshake, [...handshake, "Origin: http://localhost:PORT"]]) {
      const { status, headers } = await shakeHands(lines);
      expect([status, headers.get("sec-websocket-accept")]).toEqual([101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    }
  });

  test("with the subprotocol that is spoken if it is offered, and with none that is not", async () => {
    for (const [offered, chosen] of [
      [[], null],
      [["cloudevents.json"], "cloudevents.json"],
      [["cloudevents.avro, cloudevents.json"], "cloudevents.json"],
      [["mqtt", "cloudevents.json"], "cloudevents.json"],
      [["mqtt"], null],
      [["mqtt, v2.mqtt"], null],
      [["cloudevents.json.v2"], null],
    ] as const) {
      const lines = [...handshake, ...offered.map((names) => `Sec-WebSocket-Protocol: ${names}`)];
      const { status, headers } = await shakeHands(lines);
      expect({ offered, status, chosen: headers.get("sec-websocket-protocol") }).toEqual({
        offered,
        status: 101,
        chosen,
      });
    }
  });
});

describe("a WebSocket that sends what it should not is closed, and nobody else notices", () => {
  for (const [claim, message, code] of [
    ["a text", "hello", 1008],
    ["an empty text", "", 1008],
    ["a request as JSON", JSON.stringify({ type: "subscribe" }), 1008],
    ["bytes", new Uint8Array([1, 2, 3]), 1008],
    ["the largest frame", "x".repeat(limits.socketFrameBytes), 1008],
    ["a frame that is too large", "x".repeat(limits.socketFrameBytes + 1), 1009],
    ["a frame that is far too large", new Uint8Array(4 * 2 ** 20), 1009],
  ] as const) {
    test(claim, async () => {
      await using other = await Subscriber.open(url, "websocket");
      for (const target of [url.replace("http:", "ws:"), `ws+unix://${server.instance.socket}:`]) {
        const socket = new WebSocket(`${target}/v1/events/ws`);
        const { promise, resolve } = Promise.withResolvers<number>();
        socket.onclose = (event) => resolve(event.code);
        socket.onopen = () => {
          for (let count = 0; count < 3; count++) socket.send(message);
        };
        expect(await within("it is closed", promise)).toBe(code);
      }
      await other.untilId(await live());
      expect(other.isOpen).toBeTrue();
    });
  }

  test("garbage instead of frames", async () => {
    await using other = await Subscriber.open(url, "websocket");
    const { port } = new URL(url);
    using client = new RawClient(Number(port));
    await client.send(`${["GET /v1/events/ws HTTP/1.1", ...handshake].join("\r\n").replaceAll("PORT", port)}\r\n\r\n`);
    await until("it is open", () => client.hasReceived);
    await client.send(new Uint8Array(1000).fill(0xff));
    await until("it is closed", () => client.hasEnded);
    await other.untilId(await live());
    expect(other.isOpen).toBeTrue();
  });
});

test("an idle stream over HTTP stays open past its first comment, over TCP and the Unix socket", async () => {
  async function hearOfOne(target: string, init: BunFetchRequestInit): Promise<void> {
    const response = await fetch(`${target}/v1/events`, { headers: { accept: "text/event-stream" }, ...init });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    const untilSays = async (words: string) => {
      while (!text.includes(words)) {
        const { value, done } = await within(`the stream says ${words}`, reader?.read() ?? Promise.reject(), 30_000);
        if (done === true) throw new Error(`the stream ended before it said ${words}: ${text}`);
        text += value;
      }
    };
    await untilSays(": keep-alive");
    const { id } = await server.api.create({ byte_size: 10, ttl_ms: 60_000 });
    await untilSays(id);
    await reader?.cancel();
  }
  await Promise.all([hearOfOne(url, {}), hearOfOne("http://localhost", { unix: server.instance.socket })]);
});
