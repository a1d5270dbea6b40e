/** What callers of the Node client pass by mistake: each argument of each call is refused in words, and nothing is ignored. */

import { afterAll, expect } from "bun:test";
import * as tables from "../../clients/node/src/check/tables.ts";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";

afterAll(endLentServers);

/** The options of every call, by the calls' names; `false` where one takes none. */
const optionsOf = {
  connect: tables.connect,
  "Client.create": tables.create,
  "Client.createOnDevice": tables.createOnDevice,
  "Client.getOrCreate": tables.getOrCreate,
  "Client.ring": tables.ring,
  "Client.attach": tables.attach,
  "Client.attachOnDevice": tables.attachOnDevice,
  "Client.hold": tables.hold,
  "Client.open": tables.access,
  "Client.openWhenFree": tables.openWhenFree,
  "Client.receiver": tables.receiver,
  "Client.get": tables.get,
  "Client.getById": tables.wait,
  "Client.list": tables.list,
  "Client.change": tables.change,
  "Client.seal": tables.sealGroup,
  "Client.verify": tables.wait,
  "Client.delete": tables.revision,
  "Client.evict": tables.evict,
  "Client.copy": tables.copy,
  "Client.load": tables.load,
  "Client.loadModel": tables.loadModel,
  "Client.operations": tables.operations,
  "Client.operation": tables.wait,
  "Client.devices": tables.wait,
  "Client.device": tables.wait,
  "Client.leases": tables.wait,
  "Client.models": tables.wait,
  "Client.model": tables.wait,
  "Client.registerModel": tables.registerModel,
  "Client.changeModel": tables.changeModel,
  "Client.unregisterModel": tables.unregisterModel,
  "Client.stats": tables.wait,
  "Client.session": tables.wait,
  "Client.endSession": tables.wait,
  "Client.sessions": tables.wait,
  "Client.events": tables.events,
  "Client.pools": tables.pools,
  "Client.pool": false,
  "ElasticPool.create": tables.createPool,
  "ElasticPool.describe": tables.describePool,
  "ElasticPool.change": tables.changePool,
  "ElasticPool.map": tables.mapPages,
  "ElasticPool.unmap": tables.wait,
  "ElasticPool.trim": tables.wait,
  "ElasticPool.compact": tables.wait,
  "ElasticPool.delete": tables.revision,
  "ElasticPool.events": tables.poolEvents,
  "Region.tensor": false,
  "Region.seal": tables.seal,
  "Region.refresh": tables.wait,
  "Region.lockMemory": tables.wait,
  "Region.advise": tables.wait,
  "Region.flush": tables.wait,
  "Tensor.array": false,
  "Tensor.window": false,
  "Tensor.lockRead": tables.lock,
  "Tensor.lockWrite": tables.lock,
  "Ring.acquire": tables.lock,
  "Ring.put": tables.put,
  "Ring.send": tables.lock,
  "Ring.call": tables.lock,
  "Slot.publish": tables.packed,
  "Slot.lend": tables.packed,
  "Receiver.receive": tables.lock,
  "Receiver.messages": tables.wait,
  "Receiver.open": tables.openPacked,
  "Message.array": false,
  "Message.room": false,
  "Message.answer": false,
  "Message.fail": false,
  "Call.result": tables.lock,
  "Call.bytes": tables.lock,
  "Slot.array": false,
  "Slot.bytes": false,
  "Slot.write": false,
  "Slot.takeBack": tables.lock,
  "Rings.open": tables.slot,
  "Rings.openWhenFree": tables.slotWhenFree,
} as const;

/** Right arguments of each call before its options. */
const argumentsOf = `{
  connect: [],
  "Client.create": ["made", new Uint8Array(1)],
  "Client.createOnDevice": ["made", { dtype: "U8", shape: [1] }],
  "Client.getOrCreate": ["built", () => new Uint8Array(1)],
  "Client.ring": [],
  "Client.attach": ["w"],
  "Client.attachOnDevice": ["w"],
  "Client.hold": ["w"],
  "Client.open": [reference],
  "Client.openWhenFree": [reference],
  "Client.receiver": [ring.ref()],
  "Client.get": ["w"],
  "Client.getById": [region.id],
  "Client.list": [],
  "Client.change": [region],
  "Client.seal": [[region]],
  "Client.verify": [region],
  "Client.delete": [region],
  "Client.evict": [1],
  "Client.copy": [region],
  "Client.load": ["/none"],
  "Client.loadModel": ["/none"],
  "Client.operations": [],
  "Client.operation": ["op_a"],
  "Client.devices": [],
  "Client.device": ["GPU-1"],
  "Client.leases": [region],
  "Client.models": [],
  "Client.model": ["m"],
  "Client.registerModel": ["m"],
  "Client.changeModel": ["m"],
  "Client.unregisterModel": ["m"],
  "Client.stats": [],
  "Client.session": [],
  "Client.endSession": [],
  "Client.sessions": [],
  "Client.events": [],
  "Client.pools": [],
  "Client.pool": ["m", "GPU-1"],
  "ElasticPool.create": [],
  "ElasticPool.describe": [],
  "ElasticPool.change": [],
  "ElasticPool.map": [1],
  "ElasticPool.unmap": [0, 1],
  "ElasticPool.trim": [],
  "ElasticPool.compact": [],
  "ElasticPool.delete": [],
  "ElasticPool.events": [],
  "Region.tensor": ["data"],
  "Region.seal": [],
  "Region.refresh": [],
  "Region.lockMemory": [],
  "Region.advise": ["sequential"],
  "Region.flush": [],
  "Tensor.array": ["U8"],
  "Tensor.window": [0, 1],
  "Tensor.lockRead": [],
  "Tensor.lockWrite": [],
  "Ring.acquire": [],
  "Ring.put": [new Uint8Array(1)],
  "Ring.send": [new Uint8Array(1)],
  "Ring.call": [new Uint8Array(1)],
  "Slot.publish": [],
  "Slot.lend": [],
  "Receiver.receive": [],
  "Receiver.messages": [],
  "Receiver.open": [packed],
  "Message.array": ["U8"],
  "Message.room": ["U8", [1]],
  "Message.answer": [new Uint8Array(1)],
  "Message.fail": ["why"],
  "Call.result": [],
  "Call.bytes": [],
  "Slot.array": ["U8", [1]],
  "Slot.bytes": ["U8", [1]],
  "Slot.write": [new Uint8Array(1)],
  "Slot.takeBack": [],
  "Rings.open": [slotReference],
  "Rings.openWhenFree": [slotReference],
}`;

/** What takes no argument. */
const withoutArguments = [
  ..."Client.rings Client.close Region.close Region.residentBytes Tensor.bytes Tensor.ref Ring.close Ring.ref".split(
    " ",
  ),
  ..."Slot.send Slot.call Slot.close Rings.close Receiver.close TensorLock.release".split(" "),
  ..."Message.bytes Message.ref Message.close Call.close".split(" "),
];

const calls = Object.entries(optionsOf).map(([call, table]) => [call, table === false ? [] : Object.keys(table)]);

const objects = `
  const client = await connect();
  const region = await client.create("w", new Uint8Array(8), { ttlMs: 600_000 });
  const ring = await client.ring({ slots: 4, slotBytes: 192 });
  const slot = await ring.acquire();
  const [reference, slotReference] = [region.tensor().ref(), await ring.put(new Uint8Array(1))];
  const lock = await region.tensor().lockRead();
  const packed = await ring.put(new Uint8Array(1), { packed: true });
  const receiver = client.receiver(ring.ref(), { writable: true, onlyNew: true });
  const sent = await ring.call(new Uint8Array(1));
  const message = await receiver.receive();
  const objects = { Receiver: receiver, Message: message, Call: sent, Client: client, Region: region, Tensor: region.tensor(), Ring: ring, Slot: slot, Rings: client.rings(), TensorLock: lock, ElasticPool: client.pool("m", "GPU-1") };
  const refusal = async (action) => {
    try {
      await action();
    } catch (error) {
      return isTensordError(error) ? error : { code: "not ours", detail: String(error) };
    }
    return { code: "no error", detail: "" };
  };
`;

for (const runtime of usualRuntimes) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: every argument and every option of every call is refused by its value if it is none`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<{ methods: string[]; wrong: unknown[]; count: number }>(
      runtime,
      server.env,
      `
        ${objects}
        const given = ${argumentsOf};
        const wrong = [];
        let count = 0;
        const see = async (call, args, want) => {
          const [name, method] = call.split(".");
          const { code, detail } = await refusal(() => (method === undefined ? connect(...args) : objects[name][method](...args)));
          count += 1;
          if (code !== "validation-failed" || !want.every((each) => detail.includes(each))) wrong.push({ call, want, code, detail });
        };
        const strange = [[1n, "1n"], [Symbol("x"), "Symbol(x)"], [new Map([[1, 2]]), "Map"]];
        for (const [call, options] of ${JSON.stringify(calls)}) {
          const args = given[call];
          for (const [value, quoted] of strange) {
            for (const index of args.keys()) await see(call, args.map((each, at) => (at === index ? value : each)), [quoted]);
          }
          if (options.length === 0) continue;
          for (const [value, quoted] of [...strange, [null, "null"], ["text", '"text"'], [[], "[]"], [new URL("http://x"), "http://x"]]) {
            await see(call, [...args, value], [quoted]);
          }
          await see(call, [...args, { nonsense: 60 }], ["nonsense", "60"]);
          for (const option of options) {
            for (const [value, quoted] of [...strange, [NaN, "NaN"], [-1, "-1"]]) {
              await see(call, [...args, { [option]: value }], [option, quoted]);
            }
          }
        }
        const methods = Object.entries(objects).flatMap(([name, object]) =>
          Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(object)))
            .filter(([key, { value }]) => typeof value === "function" && key !== "constructor")
            .map(([key]) => name + "." + key));
        tell({ methods, wrong, count });
      `,
    );
    expect(seen.wrong).toEqual([]);
    expect(seen.count).toBeGreaterThan(500);
    expect(seen.methods.toSorted()).toEqual(
      [...Object.keys(optionsOf).filter((call) => call !== "connect"), ...withoutArguments].toSorted(),
    );
  });

  claim(`${runtime}: what is often meant is named, and what content cannot be is said in words`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<Record<string, readonly [string, string]>>(
      runtime,
      server.env,
      `
        ${objects}
        const say = async (action) => {
          const { code, detail, hint } = await refusal(action);
          return [code, detail + " # " + hint];
        };
        const make = (data) => say(() => client.create("content", data, { ttlMs: 60_000 }));
        tell({
          url: await say(() => connect("http://127.0.0.1:7411")),
          ttl: await say(() => client.create("x", new Uint8Array(1), { ttl: 60 })),
          python: await say(() => client.create("x", new Uint8Array(1), { if_exists: "attach" })),
          word: await say(() => client.create("x", new Uint8Array(1), { ifExists: "attched" })),
          controller: await say(() => client.stats({ signal: new AbortController() })),
          missing: await say(() => client.create(undefined, new Uint8Array(1))),
          name: await say(() => client.delete("w")),
          again: await client.get("w").then(({ state }) => [state, ""]),
          region: await client.attach(region).then(({ id }) => [String(id === region.id), ""]),
          list: await make([1, 2]),
          lists: await make({ x: [1, 2] }),
          buffer: await make(new ArrayBuffer(8)),
          data: await make({ dtype: "F32", shape: [2], data: [1, 2] }),
          tensor: await make(region.tensor()),
          field: await make({ dtype: "F32", shape: [1], dat: new Float32Array(1) }),
          bigint: await make({ dtype: "F32", shape: [1n] }),
          nan: await make({ dtype: "F32", shape: [NaN] }),
          dtype: await make({ w: { dtype: "float32", shape: [1] } }),
          nothing: await make(undefined),
        });
      `,
    );
    const refused = (...parts: string[]) => ["validation-failed", expect.stringMatching(new RegExp(parts.join(".*")))];
    expect(seen as unknown).toEqual({
      url: refused('"http://127.0.0.1:7411"', 'connect\\(\\{ url: "http://127.0.0.1:7411" \\}\\)'),
      ttl: refused("no ttl, which is 60", "is ttlMs meant"),
      python: refused('no if_exists, which is "attach"', "is ifExists meant"),
      word: refused('ifExists is "attched", want "fail" or "attach" or "replace"'),
      controller: refused("want an AbortSignal", "pass its signal"),
      missing: refused("its name is undefined, want a name, or null"),
      name: refused('it is "w"', "reg_", "client.get\\(name\\)"),
      again: ["open", ""],
      region: ["true", ""],
      list: refused("\\[ 1, 2 \\]", "new Float32Array\\(list\\)"),
      lists: refused('tensor "x"', "\\[ 1, 2 \\]", "new Float32Array\\(list\\)"),
      buffer: refused("ArrayBuffer", "new Float32Array\\(buffer\\)"),
      data: refused("its data is \\[ 1, 2 \\]", "new Float32Array\\(list\\)"),
      tensor: refused("Tensor", "tensor.bytes\\(\\)"),
      field: refused("no dat, which is Float32Array", "is data meant"),
      bigint: refused("its shape is \\[ 1n \\]"),
      nan: refused("its shape is \\[ NaN \\]"),
      dtype: refused('tensor "w": its dtype is "float32", want a dtype'),
      nothing: refused("its content is undefined"),
    });
  });
}
