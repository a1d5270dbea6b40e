/** The Node client's waits, each of which a signal ends with its reason; and what a wait that was ended leaves behind. */

import { afterAll, beforeAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

/** Ends a wait a few turns of the loop after it began, and says what came of it: `true` if that is the signal's own reason. */
const aborting = `
  const endedByReason = async (wait) => {
    const controller = new AbortController();
    const reason = { the: "reason" };
    const waiting = wait({ signal: controller.signal }).then((value) => ["it came to", value], (error) => error === reason || String(error));
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    controller.abort(reason);
    const late = await waiting;
    const early = await wait({ signal: AbortSignal.abort(reason) }).then(() => "it was done", (error) => error === reason || String(error));
    return late === true && early === true ? true : [late, early];
  };
`;

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: a signal ends every call to a server that does not answer`, async () => {
    const seen = await runProgram<{ ended: Record<string, unknown>; others: string[] }>(
      runtime,
      server.env,
      `${aborting}
        const { createServer } = await import("node:net");
        const silent = createServer(() => {}).unref();
        await new Promise((resolve) => silent.listen(0, "127.0.0.1", resolve));
        const url = "http://127.0.0.1:" + silent.address().port;
        const client = await connect({ url, session: false });
        const withSession = await connect({ url });
        const id = "reg_" + "a".repeat(26);
        const first = (iterable) => iterable[Symbol.asyncIterator]().next();
        const calls = {
          create: (options) => client.create("a", new Uint8Array(1), { ttlMs: 1_000, ...options }),
          getOrCreate: (options) => withSession.getOrCreate("a", () => new Uint8Array(1), options),
          ring: (options) => withSession.ring(options),
          attach: (options) => client.attach("a", { timeoutMs: 60_000, ...options }),
          get: (options) => client.get("a", options),
          getById: (options) => client.getById(id, options),
          list: (options) => first(client.list(options)),
          change: (options) => client.change(id, { evictable: true, ...options }),
          verify: (options) => client.verify(id, options),
          seal: (options) => client.seal([id], options),
          leases: (options) => first(client.leases(id, options)),
          delete: (options) => client.delete(id, options),
          evict: (options) => client.evict(1, options),
          createOnDevice: (options) => client.createOnDevice("a", { dtype: "U8", shape: [1] }, { ttlMs: 1_000, ...options }),
          attachOnDevice: (options) => client.attachOnDevice("a", { timeoutMs: 60_000, ...options }),
          hold: (options) => client.hold("a", { timeoutMs: 60_000, ...options }),
          copy: (options) => client.copy(id, options),
          load: (options) => client.load("/none", options),
          loadModel: (options) => client.loadModel("/none", options),
          operations: (options) => first(client.operations(options)),
          operation: (options) => client.operation("op_a", options),
          devices: (options) => client.devices(options),
          device: (options) => client.device("GPU-1", options),
          pools: (options) => first(client.pools(options)),
          createPool: (options) => client.pool("a", "GPU-1").create({ virtualCapacity: 1, ...options }),
          describePool: (options) => client.pool("a", "GPU-1").describe(options),
          changePool: (options) => client.pool("a", "GPU-1").change({ minimumBytes: 1, ...options }),
          map: (options) => client.pool("a", "GPU-1").map(1, options),
          unmap: (options) => client.pool("a", "GPU-1").unmap(0, 1, options),
          trim: (options) => client.pool("a", "GPU-1").trim(options),
          compact: (options) => client.pool("a", "GPU-1").compact(options),
          deletePool: (options) => client.pool("a", "GPU-1").delete(options),
          poolEvents: (options) => first(client.pool("a", "GPU-1").events(options)),
          models: (options) => first(client.models(options)),
          model: (options) => client.model("a", options),
          registerModel: (options) => client.registerModel("a", options),
          changeModel: (options) => client.changeModel("a", { memoryLimitBytes: 1, ...options }),
          unregisterModel: (options) => client.unregisterModel("a", options),
          stats: (options) => client.stats(options),
          session: (options) => withSession.session(options),
          sessions: (options) => first(client.sessions(options)),
          events: (options) => first(client.events(options)),
        };
        const ended = { connect: await endedByReason((options) => connect({ url, waitMs: 60_000, ...options })) };
        for (const [name, call] of Object.entries(calls)) ended[name] = await endedByReason(call);
        // The opening of the session goes on meanwhile, for whoever needs it next.
        ended.endSession = await endedByReason((options) => withSession.endSession(options));
        const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(client));
        const others = methods.filter((name) => !Object.hasOwn(ended, name)).sort();
        tell({ ended, others });
        process.exit();
      `,
    );
    expect(Object.entries(seen.ended).filter(([, isEnded]) => isEnded !== true)).toEqual([]);
    // Those that ask no server; openWhenFree is tried below.
    expect(seen.others).toEqual(["close", "constructor", "open", "openWhenFree", "pool", "receiver", "rings", "url"]);
  });

  claim(`${runtime}: a signal ends the waits for others: for a name, a lock and a slot`, async () => {
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `${aborting}
        const client = await connect();
        const other = await connect();
        const attach = await endedByReason((options) => client.attach("nobody-makes-it", { timeoutMs: 60_000, ...options }));
        const region = await client.create(null, new Uint8Array(8));
        const lock = await region.tensor().lockWrite();
        const lockRead = await endedByReason((options) => region.tensor().lockRead(options));
        const lockWrite = await endedByReason((options) => region.tensor().lockWrite(options));
        lock.release();
        const free = await region.tensor().lockWrite({ timeoutMs: 0 });
        const ring = await client.ring({ slots: 1, slotBytes: 64 });
        const slot = await ring.acquire();
        const acquire = await endedByReason((options) => ring.acquire(options));
        const put = await endedByReason((options) => ring.put(new Uint8Array(1), options));
        const send = await endedByReason((options) => ring.send(new Uint8Array(1), options));
        const call = await endedByReason((options) => ring.call(new Uint8Array(1), options));
        const receiver = other.receiver(ring.ref(), { writable: true });
        const received = await endedByReason((options) => receiver.receive(options));
        const messages = await endedByReason((options) => receiver.messages(options).next());
        const requesting = await client.ring({ slots: 1, slotBytes: 64 });
        const sent = await requesting.call(new Uint8Array(1));
        const result = await endedByReason((options) => sent.result(options));
        const bytes = await endedByReason((options) => sent.bytes(options));
        sent.close();
        const packed = await requesting.put(new Uint8Array(1), { packed: true });
        const held = other.receiver(requesting.ref(), { writable: true });
        const message = await held.open(packed);
        const openPacked = await endedByReason((options) => held.open(packed, options));
        for (const thing of [message, held, receiver]) thing.close();
        slot.array("U8", [64]);
        const lent = slot.lend();
        const opened = client.open(lent, { writable: true });
        const openWhenFree = await endedByReason((options) => other.openWhenFree(lent, options));
        const takeBack = await endedByReason((options) => slot.takeBack(options));
        opened.close();
        await slot.takeBack({ timeoutMs: 0 });
        const seal = await region.seal({ signal: AbortSignal.abort("early") }).catch((error) => error);
        const state = [(await region.refresh()).state, region.isWritable];
        free.release();
        tell({ attach, lockRead, lockWrite, acquire, put, send, call, received, messages, result, bytes, openPacked, openWhenFree, takeBack, seal, state, sealed: (await region.seal()).state });
      `,
    );
    const { seal, state, sealed, ...waits } = seen;
    expect(Object.entries(waits).filter(([, isEnded]) => isEnded !== true)).toEqual([]);
    expect({ seal, state, sealed }).toEqual({ seal: "early", state: ["open", true], sealed: "sealed" });
  });

  claim(`${runtime}: a reader and a builder that give up leave the name to the next in line`, async () => {
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const [first, second, third] = [await connect(), await connect(), await connect()];
        const name = "given-up-${runtime}";
        const builder = new AbortController();
        let begin, finish;
        const begun = new Promise((resolve) => (begin = resolve));
        const building = first.getOrCreate(name, () => {
          begin();
          return new Promise((resolve) => (finish = resolve));
        }, { signal: builder.signal }).catch((error) => error);
        await begun;
        const reader = new AbortController();
        const reading = second.getOrCreate(name, () => new Uint8Array([2]), { signal: reader.signal }).catch((error) => error);
        const next = third.getOrCreate(name, () => new Uint8Array([3]));
        await third.stats();
        reader.abort("the reader");
        const outcomes = [await reading];
        builder.abort("the builder");
        finish(new Uint8Array([1]));
        outcomes.push(await building);
        const region = await next;
        tell([...outcomes, region.isCreated, region.tensor().array("U8")[0]]);
      `,
    );
    expect(seen).toEqual(["the reader", "the builder", true, 3]);
  });

  claim(`${runtime}: a claim that was granted to nobody who heard of it goes to the next in line`, async () => {
    await using proxy = await new SocketProxy(server.instance.socket).listening();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const deaf = await connect({ url: "${proxy.url}" });
        tell((await deaf.session()).id);
        await receive();
        const controller = new AbortController();
        const waiting = deaf.getOrCreate("unheard", () => new Uint8Array([1]), { signal: controller.signal }).catch((error) => error);
        tell("asked");
        await receive();
        controller.abort("no more");
        tell(await waiting);
        const region = await (await connect()).getOrCreate("unheard", () => new Uint8Array([2]));
        tell([region.isCreated, region.tensor().array("U8")[0]]);
        await (await connect()).delete(region);
      `,
    );
    const session = await program.hear<string>();
    proxy.mute(true);
    await program.say("ask");
    expect(await program.hear()).toBe("asked");
    const claims = async () => (await server.api.call<{ readonly claims: number }>("GET", "/v1/stats")).claims;
    await until("the claim is granted", async () => (await claims()) === 1);
    proxy.mute(false);
    await program.say("give up");
    expect(await program.hear()).toBe("no more");
    expect(await program.hear()).toEqual([true, 2]);
    await program.end();
    expect(session).toStartWith("ses_");
  });
}
