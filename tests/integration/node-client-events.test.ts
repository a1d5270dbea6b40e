/** The Node client follows what happens to regions: in order, filtered, past restarts, and no faster than it is read. */

import { afterAll, expect } from "bun:test";
import { testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { startServer } from "../harness/server.ts";

const hour = 3_600_000;

interface Told {
  readonly type: string;
  readonly id: string;
  readonly name?: string | null;
}

afterAll(endLentServers);

/** Follows the events and tells each; says "following" as soon as the stream stands. */
const follow = `
  const client = await connect(patient);
  const stream = client.events(options);
  const events = stream[Symbol.asyncIterator]();
  const first = events.next();
  while (stream.after === undefined) await new Promise((resolve) => setImmediate(resolve));
  tell("following");
  for (let next = await first; !next.done; next = await events.next()) {
    tell({ type: next.value.type, id: next.value.id, name: next.value.data.name });
  }
`;

/** As `follow`, now and then so slow that events queue up. */
const slowly = follow.replace(
  "tell({",
  "if (next.value.id % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 40)); tell({",
);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: tells a region's life, in our words, to those who asked for it`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const stream = client.events({ types: ["tensord.region.", "tensord.model.registered"], model: "llama" });
        const events = [];
        const following = (async () => {
          for await (const event of stream) {
            events.push(event);
            if (event.type === "tensord.region.deleted") return;
          }
        })();
        while (stream.after === undefined) await new Promise((resolve) => setImmediate(resolve));
        await client.registerModel("llama");
        await client.create(null, new Uint8Array(1), { ttlMs: 600_000 });
        const region = await client.create("w", { a: new Uint8Array(1), b: new Uint8Array(2) }, { model: "llama", ttlMs: 600_000, labels: { made_by: "test" } });
        await region.seal();
        region.close();
        await client.delete(region);
        await following;
        const [, allocated, sealed] = events;
        const again = [];
        for await (const event of client.events({ after: events[0].id, model: "llama" })) {
          again.push(event.id);
          if (again.length === events.length - 1) break;
        }
        tell({
          types: events.map(({ type }) => type),
          allocated: { subject: allocated.subject === region.id, ...allocated.data, storage: undefined },
          sealed: [sealed.data.state, typeof sealed.data.sealedAt, sealed.source, typeof sealed.time],
          deleted: [events.at(-1).data.reason, "actor" in events.at(-1).data],
          after: stream.after === events.at(-1).id,
          again: again.join() === events.slice(1).map(({ id }) => id).join(),
        });
      `,
    );
    expect(await program.hear()).toMatchObject({
      types: [
        "tensord.model.registered",
        "tensord.region.allocated",
        "tensord.region.sealed",
        "tensord.region.draining",
        "tensord.region.deleted",
      ],
      allocated: {
        subject: true,
        name: "w",
        model: "llama",
        tensorCount: 2,
        labels: { made_by: "test" },
        state: "open",
      },
      sealed: ["sealed", "string", `/tensord/${server.instance.name}`, "string"],
      deleted: ["request", true],
      after: true,
      again: true,
    });
    // Both loops were left: nothing holds the process.
    await program.end();
  });

  test(`${runtime}: goes on after a restart without loss, after a crash with a gap, and behind that again`, async () => {
    await using server = await lendServer();
    await using program = startProgram(runtime, server.env, `const options = {};${follow}`);
    const create = (name: string) => server.api.create({ name, byte_size: 1, ttl_ms: hour });
    expect(await program.hear()).toBe("following");
    await create("one");
    const one = await program.hear<Told>();
    expect(one).toMatchObject({ type: "tensord.region.allocated", name: "one" });
    await server.stop();
    await server.start();
    await create("two");
    const two = await program.hear<Told>();
    expect(two).toMatchObject({ type: "tensord.region.allocated", name: "two" });
    await server.crash();
    expect(await program.hear<Told>()).toMatchObject({ type: "tensord.stream.gap" });
    await server.stop();
    await server.start();
    await create("three");
    const heard: Told[] = [];
    while (heard.at(-1)?.name !== "three") heard.push(await program.hear<Told>());
    expect(heard.map(({ type }) => type)).not.toContain("tensord.stream.gap");
    const ids = [one, two, ...heard].map(({ id }) => BigInt(id));
    expect(ids.every((id, index) => index === 0 || id > (ids[index - 1] ?? 0n))).toBe(true);
  });

  test(`${runtime}: goes on where a connection was cut, in the middle of a frame or of the handshake`, async () => {
    const random = new Random();
    const count = 500;
    await using server = await lendServer();
    await using proxy = await new SocketProxy(server.instance.socket).listening();
    const env = { ...server.env, TENSORD_URL: proxy.url };
    await using program = startProgram(runtime, env, `const options = {};${slowly}`);
    expect(await program.hear()).toBe("following");
    // Some are too short for one event, and most end within one.
    proxy.cutAfter(() => random.integer(1, random.pick([500, 4_000, 20_000])));
    const names = Array.from({ length: count }, (_, index) => `m${index}`);
    const told: Told[] = [];
    const hear = async () => {
      while (told.at(-1)?.name !== names.at(-1)) told.push(await program.hear<Told>());
    };
    const create = async () => {
      for (const name of names) await server.api.call("POST", "/v1/models", { name });
    };
    try {
      await Promise.all([hear(), create()]);
    } finally {
      const ids = told.map(({ id }) => BigInt(id));
      const steps = ids.slice(1).map((id, index) => id - (ids[index] ?? 0n));
      const repeats = steps.filter((step) => step <= 0n).length;
      const gaps = steps.filter((step) => step > 1n).length;
      console.log(
        JSON.stringify({ events: runtime, seed: random.seed, told: told.length, cuts: proxy.cuts, repeats, gaps }),
      );
      expect({ repeats, gaps }).toEqual({ repeats: 0, gaps: 0 });
    }
    expect(told.map(({ name }) => name)).toEqual(names);
    expect(proxy.cuts).toBeGreaterThan(20);
  });

  test(`${runtime}: does not read faster than its consumer, and loses nothing`, async () => {
    await using server = await lendServer();
    const count = 400;
    await using program = startProgram(
      runtime,
      server.env,
      `
        import WebSocket from "ws";
        const { pause } = WebSocket.prototype;
        WebSocket.prototype.pause = function () {
          tell("paused");
          WebSocket.prototype.pause = pause;
          pause.call(this);
        };
        const client = await connect();
        const stream = client.events({ types: ["tensord.model.registered"] });
        const events = stream[Symbol.asyncIterator]();
        const first = events.next();
        while (stream.after === undefined) await new Promise((resolve) => setImmediate(resolve));
        tell("following");
        const names = [(await first).value.data.name];
        await receive();
        while (names.length < ${count}) names.push((await events.next()).value.data.name);
        tell(names);
        await events.return();
      `,
    );
    expect(await program.hear()).toBe("following");
    const names = Array.from({ length: count }, (_, index) => `m${index}`);
    for (const name of names) await server.api.call("POST", "/v1/models", { name });
    expect(await program.hear()).toBe("paused");
    await program.say("read");
    expect(await program.hear()).toEqual(names);
    await program.end();
  });

  test(`${runtime}: ends by signal, with the client, without reconnecting, and when it is refused`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const ended = (options, stop) => codeOf(async () => {
          const stream = client.events(options);
          const events = stream[Symbol.asyncIterator]();
          const first = events.next();
          while (stop && stream.after === undefined) await new Promise((resolve) => setImmediate(resolve));
          stop?.();
          const { value } = await first;
          if (value) throw { code: value.type };
        });
        const controller = new AbortController();
        const reason = Object.assign(new Error("enough"), { code: "enough" });
        tell({
          bySignal: await ended({ signal: controller.signal }, () => controller.abort(reason)),
          before: await ended({ signal: AbortSignal.abort(reason) }),
          unknownModel: await ended({ model: "../x" }),
          badAfter: await ended({ after: "yesterday" }),
          old: await ended({ after: "1" }),
        });
        const once = ended({ reconnect: false }, () => tell("following"));
        tell(await once);
        await receive();
        await client.stats();
        tell(await ended({}, () => client.close()));
      `,
    );
    expect(await program.hear()).toEqual({
      bySignal: "enough",
      before: "enough",
      unknownModel: "validation-failed",
      badAfter: "validation-failed",
      old: "tensord.stream.gap",
    });
    expect(await program.hear()).toBe("following");
    await server.stop();
    expect(await program.hear()).toBe("no error");
    await server.start();
    await program.say("go on");
    expect(await program.hear()).toBe("closed");
    await program.end();
  });

  test(`${runtime}: over TCP as well`, async () => {
    await using server = await startServer({ env: { TENSORD_PORT: "0" } });
    const url = await server.readUrl();
    const seen = await runProgram(
      runtime,
      { TENSORD_URL: url },
      `
        const client = await connect({ waitMs: 5_000 });
        const stream = client.events();
        const events = stream[Symbol.asyncIterator]();
        const first = events.next();
        while (stream.after === undefined) await new Promise((resolve) => setImmediate(resolve));
        const region = await client.create("w", new Uint8Array([4]), { ttlMs: 600_000 });
        const { value } = await first;
        await events.return();
        tell([client.url, value.subject === region.id, region.tensor().array()[0]]);
      `,
    );
    expect(seen).toEqual([url.replace(/\/$/, ""), true, 4]);
  });
}
