/** What a message to the broker has to be before it is looked at, on any bytes. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { toBrokerPath } from "../../src/server/broker/broker-socket.ts";
import { type Frame, parseFrame } from "../../src/server/broker/frames.ts";

test("any bytes are a request or a reason, and never an exception", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => Buffer.from(text)),
    fc.json().map((text) => Buffer.from(`{"id":1,"op":"hello","x":${text}}`)),
  );
  fc.assert(
    fc.property(bytes, (message) => {
      const frame = parseFrame(message);
      if (typeof frame === "string") return frame.length > 0 && frame.length < 300;
      return Number.isSafeInteger(frame.id) && frame.id >= 0 && typeof frame.op === "string";
    }),
  );
});

test("a request is what JSON says, whatever its members are called", () => {
  const frame = parseFrame(
    Buffer.from('{"id":9007199254740991,"op":"x","__proto__":{"a":1},"constructor":null}'),
  ) as Frame;
  expect([frame.id, frame.op, Object.keys(frame)]).toEqual([
    Number.MAX_SAFE_INTEGER,
    "x",
    ["id", "op", "__proto__", "constructor"],
  ]);
  expect(({} as { a?: number }).a).toBeUndefined();
});

test("a mark of the byte order is no part of JSON", () => {
  expect(parseFrame(Buffer.from('\ufeff{"id":1,"op":"x"}'))).toContain("it is not JSON");
});

for (const [socket, broker] of [
  ["/dev/shm/tensord.default/http.sock", "/dev/shm/tensord.default/broker.sock"],
  ["/run/tensord/a.sock", "/run/tensord/a.sock.broker"],
  ["/run/tensord", "/run/tensord.broker"],
  [`/${"x".repeat(99)}`, `/${"x".repeat(99)}.broker`],
  [`/${"x".repeat(100)}`, undefined],
] as const) {
  test(`the broker of ${socket.slice(0, 40)} listens beside it`, () => {
    expect(toBrokerPath(socket)).toBe(broker as string);
  });
}
