/** What ends a connection to the broker, and only that one: what is no message, descriptors, floods, silence, and the server's own end. */

import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, existsSync, lstatSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { limits } from "../../src/memory/limits.ts";
import { Broker } from "../../src/server/broker/broker.ts";
import { until } from "../harness/app.ts";
import { BrokerClient } from "../harness/broker-client.ts";
import { patienceMs } from "../harness/server-wait.ts";
import { type OpenBroker, withBroker } from "./support/broker.ts";

const hour = 3_600_000;
/** What this process has open, server and clients alike. */
const countOpen = () => readdirSync("/proc/self/fd").length;
/** Of a server that soon ends who says nothing, and of one that soon ends who reads nothing. A busy machine may have to come again. */
const endsSilent = { patience: { helloMs: 300, stallMs: patienceMs, lookMs: 20 } };
const endsStalled = { patience: { helloMs: patienceMs, stallMs: 300, lookMs: 20 } };
const connectAtLast = ({ connect }: OpenBroker) => until("one is let in", () => connect().catch(() => undefined));

/** Others are answered as before. */
async function expectUndisturbed({ app, connect }: OpenBroker, others: readonly BrokerClient[] = []): Promise<void> {
  const { id } = await app.create();
  for (const client of [...others, await connect()]) {
    const { descriptors } = await client.attach(id);
    client.letGo(descriptors);
  }
  await app.remove(id);
}

describe("what is no message closes its connection, after it was told why, and no other", () => {
  const long = Buffer.from(JSON.stringify({ id: 1, op: "hello", v: 1, token: "x".repeat(limits.brokerFrameBytes) }));
  for (const [what, frame, words] of [
    ["an empty one", "", "it is empty"],
    ["text", "hello", "it is not JSON"],
    ["bytes that are no UTF-8", Buffer.of(0x7b, 0xc3, 0x28, 0x7d), "it is not UTF-8"],
    ["a list", "[1]", "it is no JSON object"],
    ["a number", "1", "it is no JSON object"],
    ["null", "null", "it is no JSON object"],
    ["an object without an id", '{"op":"hello"}', "its id is no whole number"],
    ["an id that is half a number", '{"id":1.5,"op":"hello"}', "its id is no whole number"],
    ["an id that no number holds", '{"id":9007199254740993,"op":"hello"}', "its id is no whole number"],
    ["an id that is text", '{"id":"1","op":"hello"}', "its id is no whole number"],
    ["an object without an op", '{"id":1}', "it has no op"],
    ["two objects", '{"id":1,"op":"hello","v":1}{"id":2,"op":"hello","v":1}', "it is not JSON"],
    ["a member that comes twice", '{"id":1,"id":2,"op":"hello","v":1}', "it is not JSON"],
    ["deep brackets", `{"id":1,"op":"hello","v":${"[".repeat(5000)}${"]".repeat(5000)}}`, "it is not JSON"],
    ["one that was cut", long.subarray(0, limits.brokerFrameBytes), "it is not JSON"],
  ] as const) {
    test(
      what,
      withBroker(async (server) => {
        const other = await server.connect();
        using client = await BrokerClient.open(server.path);
        client.send(typeof frame === "string" ? frame : new Uint8Array(frame));
        const last = await client.closing();
        expect(last).toMatchObject({ id: null, ok: false, problem: { code: "malformed-body" } });
        expect(last?.problem?.detail).toContain(words);
        await expectUndisturbed(server, [other]);
      }),
    );
  }

  test(
    "descriptors, which are opened by nobody here",
    withBroker(async (server) => {
      const other = await server.connect();
      // Workers that come up open some of their own.
      await server.app.start();
      const before = countOpen();
      using client = await BrokerClient.open(server.path);
      const sent = Array.from({ length: 200 }, () => openSync("/dev/null", "r"));
      expect(client.send('{"id":2,"op":"nonsense"}', sent)).toBe("sent");
      expect((await client.closing())?.problem?.detail).toContain("it carries descriptors");
      for (const fd of sent) closeSync(fd);
      client.close();
      await until("nothing of it is open", () => countOpen() <= before);
      await expectUndisturbed(server, [other]);
    }),
  );

  test(
    "and it is told why though it had sent much more that nobody read",
    withBroker(async (server) => {
      using client = await BrokerClient.open(server.path);
      client.send("[]");
      while (client.send('{"id":1,"op":"release","region":"reg_a"}') === "sent");
      expect(await client.closing()).toMatchObject({ id: null, problem: { code: "malformed-body" } });
      await expectUndisturbed(server);
    }),
  );

  test(
    "a session that it held has its TTL from then on, as after any end that is the server's",
    withBroker(async ({ app, connect }) => {
      const client = await connect({ session: { ttl_ms: hour } });
      client.send("[]");
      await client.closing();
      expect(await app.ok<object>(200, "GET", "/v1/sessions")).toMatchObject({
        items: [{ held: false, ttl_ms: hour }],
      });
    }),
  );
});

describe("who asks without reading", () => {
  test(
    "is answered in order once it reads, and keeps nobody waiting meanwhile",
    withBroker(async (server) => {
      const { app, connect } = server;
      const { id } = await app.create();
      const client = await connect();
      let asked = 100;
      while (client.send(JSON.stringify({ id: asked, op: "attach", region: id, access: "ro", count: 0 })) === "sent")
        asked += 1;
      // Far more than its answers have room for.
      expect(asked).toBeGreaterThan(200);
      await expectUndisturbed(server);
      for (let next = 100; next < asked; next++)
        expect((await client.answer()).reply).toMatchObject({ id: next, ok: true });
    }),
  );

  test(
    "may send 64 requests, for a descriptor each, before it reads an answer",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create();
      const client = await connect();
      const asking = Array.from({ length: 64 }, (_, index) => index);
      for (const each of asking) client.send(JSON.stringify({ id: each, op: "attach", region: id, access: "ro" }));
      for (const each of asking) {
        const { reply, descriptors } = await client.answer();
        expect([reply.id, descriptors.length]).toEqual([each, 1]);
      }
    }),
  );

  test(
    "gets no more descriptors than a bound, and gets them again once it has read",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create();
      const client = await connect();
      const ask = (each: number) =>
        client.send(JSON.stringify({ id: each, op: "attach", region: id, access: "ro", count: 200 }));
      ask(1);
      ask(2);
      ask(3);
      const answers = [await client.answer(), await client.answer(), await client.answer()];
      const late = answers.find(({ reply }) => !reply.ok)?.reply;
      expect(answers[0]?.descriptors.length).toBe(200);
      // A client that was quick enough has read the first before the second was answered.
      if (late !== undefined) expect(late.problem).toMatchObject({ code: "too-many-requests" });
      for (const { descriptors } of answers) client.letGo(descriptors);
      expect((await client.attach(id, { count: 200 })).descriptors.length).toBe(200);
    }),
  );

  test(
    "is ended, and no descriptor of it is left on its way",
    withBroker(async (server) => {
      const { app, open } = server;
      const region = await app.create();
      const client = await connectAtLast(server);
      expect(client.send(JSON.stringify({ id: 5, op: "attach", region: region.id, access: "ro" }))).toBe("sent");
      await until("it is ended", () => open.size === 0);
      expect((await client.receive()) as object).toMatchObject({ reply: { id: 5, leased: true } });
      expect((await app.get(region.id)).in_use).toBeTrue();
      expect(await client.closing()).toMatchObject({ id: null, problem: { code: "deadline-exceeded" } });
      client.close();
      expect((await app.get(region.id)).in_use).toBeFalse();
    }, endsStalled),
  );

  test(
    "is not who asks again and again and reads each answer, whenever it is looked at",
    withBroker(async (server) => {
      const { id } = await server.app.create();
      /** @returns whether it was let go on for several times as long as who reads nothing. */
      const askSteadily = async () => {
        const client = await connectAtLast(server);
        const asked = () => client.attach(id).then(({ descriptors }) => client.letGo(descriptors));
        for (const end = performance.now() + 4 * endsStalled.patience.stallMs; performance.now() < end; ) {
          if (
            !(await asked()
              .then(() => true)
              .catch(() => false))
          )
            return false;
          await Bun.sleep(endsStalled.patience.lookMs);
        }
        return true;
      };
      // On a machine that is busy enough it may read late indeed.
      await until("it is let go on", askSteadily);
    }, endsStalled),
  );
});

test(
  "a connection that says nothing at first is ended, and one that has said something may be silent",
  withBroker(async (server) => {
    const { path, open } = server;
    const greeted = await connectAtLast(server);
    using silent = new BrokerClient(path);
    expect(await silent.closing()).toMatchObject({ id: null, problem: { code: "deadline-exceeded" } });
    await until("it is the last", () => open.size === 1);
    expect((await greeted.problem("nonsense")).code).toBe("validation-failed");
  }, endsSilent),
);

test(
  "more connections than fit are refused by name, and let in when others have gone",
  withBroker(async (server) => {
    const { broker, path, open } = server;
    broker.bound(8);
    const clients = await Promise.all([1, 2, 3, 4].map(() => BrokerClient.open(path)));
    using fifth = new BrokerClient(path);
    expect(await fifth.closing()).toMatchObject({ id: null, problem: { code: "too-many-requests" } });
    clients.pop()?.close();
    await until("one has gone", () => open.size === 3);
    using again = await BrokerClient.open(path);
    expect(again.fd).toBeGreaterThan(0);
    for (const client of clients) client.close();
    await until("all but one have gone", () => open.size === 1);
  }),
);

test(
  "a thousand connections are held and answered, and nothing of them is open when they are gone",
  withBroker(async (server) => {
    const { app, path, open } = server;
    const { id } = await app.create();
    await expectUndisturbed(server);
    await until("only one is open", () => open.size === 1);
    await app.start();
    const before = countOpen();
    const clients: BrokerClient[] = [];
    for (let count = 0; count < 1000; count++)
      clients.push(await BrokerClient.open(path, { session: { ttl_ms: hour } }));
    expect([open.size, (await app.stats()).sessions]).toEqual([1001, 1000]);
    await expectUndisturbed(server, [clients[0], clients[500], clients[999]] as BrokerClient[]);
    const { descriptors } = await (clients[7] as BrokerClient).attach(id);
    expect(descriptors.length).toBe(1);
    for (const client of clients) client.close();
    await until("all have gone", () => open.size <= 2);
    await until("their sessions have ended", async () => (await app.stats()).sessions === 0);
    expect((await app.get(id)).in_use).toBeFalse();
    await until("nothing of them is open", () => countOpen() <= before + 2);
  }),
);

test(
  "a connection whose process sends on after it closed one side is answered until its end",
  withBroker(async ({ app, connect }) => {
    const { id } = await app.create({ name: "w" });
    const client = await connect({ session: { ttl_ms: hour } });
    client.send(JSON.stringify({ id: 9, op: "attach", region: id, access: "ro" }));
    client.send(JSON.stringify({ id: 10, op: "release", region: id }));
    client.endSending();
    expect((await client.answer()).reply).toMatchObject({ id: 9, ok: true });
    expect((await client.answer()).reply).toMatchObject({ id: 10, ok: true });
    expect(await client.receive()).toBe("closed");
    await until("its session has ended", async () => (await app.stats()).sessions === 0);
  }),
);

test("a Worker that dies takes its connections with it, and the next one takes new ones", async () => {
  const warnings: string[] = [];
  // What dies again and again must not be started without a pause.
  const timers = spyOn(globalThis, "setTimeout");
  await withBroker(
    async (server) => {
      const { app, connect, open } = server;
      const client = await connect({ session: { ttl_ms: hour } });
      const [fd = -1] = open;
      // In place of the connection stands what no poll takes.
      closeSync(fd);
      const taken: number[] = [];
      while (!taken.includes(fd)) taken.push(openSync("/dev/null", "r"));
      for (const each of taken) if (each !== fd) closeSync(each);
      client.close();
      await expectUndisturbed(server, []).catch(() => {});
      await until("it has told", () => warnings.length > 0);
      expect(timers.mock.calls.filter(([, delayMs]) => delayMs === limits.brokerRestartMs)).toHaveLength(1);
      timers.mockRestore();
      await until("another is let in", () => connect().catch(() => undefined));
      await expectUndisturbed(server);
      expect(warnings).toEqual(["The broker's connections are closed, and it is started again"]);
      expect(await app.ok<object>(200, "GET", "/v1/sessions")).toMatchObject({ items: [{ held: false }] });
    },
    { onWarning: (message) => warnings.push(message) },
  )();
});

describe("the socket", () => {
  const parts = ({ app }: OpenBroker) => ({
    store: app.store,
    onUnexpected: () => {},
    onWarning: () => {},
    onOpen: () => {},
    onClose: () => {},
  });

  test(
    "is the group's, goes with the server, and replaces one that a dead server left",
    withBroker(async (server) => {
      const { broker, path } = server;
      expect(lstatSync(path).mode & 0o777).toBe(0o660);
      const second = await Broker.start(parts(server));
      try {
        expect(() => second.listen(path)).toThrow("another server listens there");
        await broker.stop();
        expect(existsSync(path)).toBeFalse();
        second.listen(path);
        using client = await BrokerClient.open(path);
        expect(client.fd).toBeGreaterThan(0);
      } finally {
        await second.stop();
      }
    }),
  );

  test(
    "never takes the place of what is not its own",
    withBroker(async (server) => {
      const other = await Broker.start(parts(server));
      const path = `${server.app.shmDirectory}/tensord.${server.app.instance}/other.sock`;
      const stream = createServer();
      try {
        writeFileSync(path, "");
        expect(() => other.listen(path)).toThrow("a file that is no socket stands there");
        const api = `${path}.api`;
        await new Promise<void>((resolve) => stream.listen(api, resolve));
        expect(() => other.listen(api)).toThrow("another server listens there");
        expect(() => other.listen(`/tmp/${"x".repeat(110)}`)).toThrow("want at most 107");
        expect(() => other.listen("/nowhere/broker.sock")).toThrow("ENOENT");
      } finally {
        stream.close();
        await other.stop();
        rmSync(path);
      }
    }),
  );
});
