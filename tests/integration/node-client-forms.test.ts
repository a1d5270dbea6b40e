/** What is the same on every runtime of the Node client: references that went to a thread or a fork, F16, and what is printed. */

import { afterAll, expect } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";

afterAll(endLentServers);

/** A thread, or a forked process, that opens each of the references that it is sent, in every form. */
const other = join(root, ".tmp/node-client-forms/other.mjs");
mkdirSync(dirname(other), { recursive: true });
writeFileSync(
  other,
  `
    import { parentPort, workerData } from "node:worker_threads";
    import { connect, TensorReference } from "@tensord/client";
    const client = await connect({ session: false });
    const read = (references) => references.flatMap((reference) => {
      const forms = [reference, TensorReference.parse(reference), JSON.stringify(TensorReference.parse(reference))];
      return forms.map((form) => client.open(form).array("F32")[1]);
    });
    if (parentPort) parentPort.postMessage(read(workerData));
    else process.on("message", (references) => process.send(read(references), () => process.exit()));
  `,
);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: a reference that was posted to a thread, or sent to a fork, opens there`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        import { fork } from "node:child_process";
        import { Worker } from "node:worker_threads";
        const client = await connect();
        const region = await client.create("w", new Float32Array([1, 2]), { ttlMs: 600_000 });
        const ring = await client.ring({ slots: 2, slotBytes: 64 });
        const references = [region.tensor().ref(), await ring.put(new Float32Array([3, 4]))];
        const heard = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
        const worker = new Worker(${JSON.stringify(other)}, { workerData: references, execArgv: [] });
        const thread = await heard(worker, "message");
        const forks = {};
        for (const serialization of ["json", "advanced"]) {
          const child = fork(${JSON.stringify(other)}, { serialization, execArgv: [] });
          child.send(references);
          forks[serialization] = await heard(child, "message");
        }
        await worker.terminate();
        const { deviceUuid, ...rest } = structuredClone(references[0]);
        const broken = [{ ...rest }, { ...rest, deviceUuid, more: 1 }, { ...rest, deviceUuid, byteSize: 9 }];
        tell({ thread, forks, broken: await Promise.all(broken.map((each) => codeOf(() => client.open(each)))) });
      `,
    );
    const values = [2, 2, 2, 4, 4, 4];
    expect(seen).toEqual({
      thread: values,
      forks: { json: values, advanced: values },
      broken: Array(3).fill("validation-failed"),
    });
  });

  claim(`${runtime}: F16 is given and read as its bits, and as the runtime's own numbers`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const bits = new Uint16Array([0x3e00, 0x4000]);
        const numbers = globalThis.Float16Array ? new Float16Array([1.5, 2]) : bits;
        const spec = { dtype: "F16", shape: [2] };
        const shown = async (data) => {
          const tensor = (await client.create(null, { ...spec, data })).tensor();
          return [tensor.dtype, [...tensor.bytes()], [...tensor.array("U16")], tensor.array("F16").constructor.name];
        };
        const ring = await client.ring({ slots: 2, slotBytes: 64 });
        const slot = client.open(await ring.put({ ...spec, data: bits }));
        tell({
          same: [await shown(bits), await shown(numbers), await shown(new Uint8Array(bits.buffer))].map(String),
          slot: [...slot.array("U16")],
          other: await codeOf(() => shown(new Uint32Array(1))),
          unlike: await client.create(null, new Float32Array(1)).then((region) => codeOf(() => region.tensor().array("U32"))),
        });
      `,
    );
    expect(seen).toEqual({
      same: Array(3).fill(expect.stringMatching(/^F16,0,62,0,64,15872,16384,(Float16|Uint16)Array$/)),
      slot: [0x3e00, 0x4000],
      other: "validation-failed",
      unlike: "validation-failed",
    });
  });

  claim(`${runtime}: console.log shows name, dtype, shape and state of a region and a tensor`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        import { inspect } from "node:util";
        const client = await connect();
        const region = await client.create("w", { a: new Float32Array(2), b: { dtype: "U8", shape: [2, 3] } }, { ttlMs: 600_000 });
        const ring = await client.ring({ slots: 2, slotBytes: 64 });
        const tensor = region.tensor("b");
        const shown = [inspect(region), inspect(tensor), inspect(client.open(tensor.ref())), inspect(ring), inspect(client)];
        for (;;) {
          await collect();
          if (await codeOf(() => region.seal()) === "no error") break;
        }
        const sealed = inspect(region);
        region.close();
        tell([...shown, sealed, inspect(region), inspect(tensor)].join("\\n").replaceAll(region.id, "ID"));
      `,
    );
    expect(String(seen).split("\n")).toEqual([
      'Region ID (default/w), open, writable { "a": F32 [2], "b": U8 [2, 3] }',
      'Tensor "b" U8 [2, 3] of ID, writable',
      "Tensor U8 [2, 3] of ID",
      expect.stringContaining("Ring of 2 slots of 64 bytes in reg_"),
      expect.stringContaining("Client of unix://"),
      'Region ID (default/w), sealed { "a": F32 [2], "b": U8 [2, 3] }',
      'Region ID (default/w), sealed, closed here { "a": F32 [2], "b": U8 [2, 3] }',
      'Tensor "b" U8 [2, 3] of ID, closed',
    ]);
  });
}
