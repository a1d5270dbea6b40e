/** The Node client makes, maps, seals and finds regions: in Node and in Bun, and together with the Python client. */

import { afterAll, expect } from "bun:test";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  needsNodeClient,
  type Runtime,
  runProgram,
  runPython,
  runtimes,
  startProgram,
} from "../harness/node-program.ts";

const GiB = 2 ** 30;
const both = Object.keys(runtimes) as Runtime[];

afterAll(endLentServers);

for (const runtime of both) {
  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: what it makes and seals, Python maps with content`,
    async () => {
      await using server = await lendServer();
      await using program = startProgram(
        runtime,
        server.env,
        `
        const client = await connect();
        const region = await client.create(
          "weights",
          {
            w: { dtype: "F32", shape: [2, 3], data: new Float32Array([1, 2, 3, 4, 5, 6]) },
            b: new Float64Array([0.5, -0.5]),
            ids: new BigInt64Array([-1n, 2n ** 60n]),
            half: { dtype: "BF16", shape: [2], data: new Uint16Array([0x3f80, 0xc000]) },
            flags: { dtype: "BOOL", shape: [3], data: new Uint8Array([1, 0, 1]) },
            zeros: { dtype: "I32", shape: [4] },
            empty: { dtype: "U8", shape: [0, 5] },
            scalar: { dtype: "U16", shape: [], data: new Uint16Array([513]) },
          },
          { ttlMs: 600_000, labels: { made_by: "node" } },
        );
        region.tensor("w").array("F32")[0] = 42;
        const sealed = await region.seal({ checksum: true });
        tell({
          isCreated: region.isCreated,
          isWritable: region.isWritable,
          state: sealed.state,
          digits: sealed.checksum.value.length,
          verified: (await client.verify(region)).ok,
          labels: sealed.labels,
          reference: region.tensor("w").ref(),
        });
        await receive();
        process.exit();
      `,
      );
      const told = await program.hear<{ reference: unknown }>();
      expect(told).toMatchObject({
        isCreated: true,
        isWritable: false,
        state: "sealed",
        digits: 16,
        verified: true,
        labels: { made_by: "node" },
      });
      const seen = await runPython(
        server.env,
        `
        region = tensord.attach("weights", timeout=180)
        values = {name: tensor.numpy().astype(np.float64).tolist() for name, tensor in region.tensors.items()}
        with tensord.connect() as client:
            opened = client.open(tensord.TensorReference.from_dict(json.loads(r'''${JSON.stringify(told.reference)}''')))
        tell({"values": values, "ids": region["ids"].numpy().tolist(), "opened": opened.numpy().tolist()})
      `,
      );
      expect(seen).toEqual({
        values: {
          w: [
            [42, 2, 3],
            [4, 5, 6],
          ],
          b: [0.5, -0.5],
          ids: [-1, 2 ** 60],
          half: [1, -2],
          flags: [1, 0, 1],
          zeros: [0, 0, 0, 0],
          empty: [],
          scalar: 513,
        },
        ids: [-1, 2 ** 60],
        opened: [
          [42, 2, 3],
          [4, 5, 6],
        ],
      });
    },
  );

  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: maps what Python made, by name and by reference`,
    async () => {
      await using server = await lendServer();
      const reference = await runPython(
        server.env,
        `
        import ml_dtypes
        with tensord.connect() as client:
            arrays = {
                "w": np.arange(6, dtype=np.float32).reshape(2, 3),
                "half": np.array([1, -2], dtype=ml_dtypes.bfloat16),
                "f16": np.array([1, -2], dtype=np.float16),
                "f8": np.array([1, -2], dtype=ml_dtypes.float8_e4m3fn),
                "c": np.array([1 + 2j], dtype=np.complex64),
                "big": np.array([2**63], dtype=np.uint64),
                "flags": np.array([True, False]),
            }
            region = client.create("weights", arrays, ttl=600)
            region.seal(checksum=True)
            tell(region["w"].ref().to_dict())
      `,
      );
      const seen = await runProgram<Record<string, unknown>>(
        runtime,
        server.env,
        `
        const client = await connect();
        const region = await client.attach("weights", { timeoutMs: 180_000 });
        const show = (tensor) => [tensor.array().constructor.name, ...Array.from(tensor.array(), Number)];
        const values = Object.fromEntries([...region.tensors].map(([name, tensor]) => [name, show(tensor)]));
        const opened = client.open(TensorReference.parse(${JSON.stringify(reference)}));
        tell({
          ...values,
          f16Bits: Array.from(new Uint16Array(region.tensor("f16").bytes().buffer)),
          shape: region.tensor("w").shape,
          dtype: region.tensor("half").dtype,
          isWritable: region.isWritable,
          opened: { shape: opened.shape, values: Array.from(opened.array("F32")) },
          isCopied: [...region.tensors.values()].some((tensor) => tensor.isCopied),
        });
      `,
      );
      const { f16, ...rest } = seen;
      expect(rest).toEqual({
        w: ["Float32Array", 0, 1, 2, 3, 4, 5],
        half: ["Uint16Array", 0x3f80, 0xc000],
        f16Bits: [0x3c00, 0xc000],
        f8: ["Uint8Array", 0x38, 0xc0],
        c: ["Float32Array", 1, 2],
        big: ["BigUint64Array", 2 ** 63],
        flags: ["Uint8Array", 1, 0],
        shape: [2, 3],
        dtype: "BF16",
        isWritable: false,
        opened: { shape: [2, 3], values: [0, 1, 2, 3, 4, 5] },
        isCopied: false,
      });
      expect([
        ["Float16Array", 1, -2],
        ["Uint16Array", 0x3c00, 0xc000],
      ]).toContainEqual(f16 as [string, number, number]);
    },
  );

  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: writes reach another language's mapping, and back`,
    async () => {
      await using server = await lendServer();
      await using program = startProgram(
        runtime,
        server.env,
        `
        const client = await connect();
        const region = await client.create("shared", { dtype: "I32", shape: [4] }, { ttlMs: 600_000 });
        const array = region.tensor().array("I32");
        array[0] = 7;
        tell("made");
        await receive();
        tell(Array.from(array));
        await receive();
        process.exit();
      `,
      );
      expect(await program.hear()).toBe("made");
      const before = await runPython(
        server.env,
        `
        region = tensord.attach("shared", writable=True)
        tell(region.numpy().tolist())
        region.numpy()[3] = 9
      `,
      );
      expect(before).toEqual([7, 0, 0, 0]);
      await program.say("look");
      expect(await program.hear()).toEqual([7, 0, 0, 9]);
    },
  );

  testWith(needsNodeClient)(`${runtime}: finds, lists, changes and deletes regions and models`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect({ waitMs: 5_000 });
        const model = await client.registerModel("llama", { memoryLimitBytes: 2 ** 30 });
        const region = await client.create("a", new Uint8Array(10), { model: "llama", ttlMs: 60_000, labels: { my_job: "x" } });
        await client.create(null, new Uint8Array(10), { ttlMs: 60_000 });
        const again = await client.create("a", new Uint8Array(10), { model: "llama", ttlMs: 60_000, ifExists: "attach" });
        const names = [];
        const listed = [];
        for await (const facts of client.list({ model: "llama", state: "open", label: ["my_job", "x"] })) {
          names.push(facts.name);
          const attached = await client.attach(facts);
          listed.push("tensors" in facts, facts.tensorCount, [...attached.tensors.keys()]);
          attached.close();
        }
        const models = [];
        for await (const { name } of client.models()) models.push(name);
        const changed = await client.change(region, { persist: true, labels: { my_job: null, other: "y" } });
        const found = await client.get("a", { model: "llama" });
        const byId = await client.getById(region.id);
        const inUse = await codeOf(() => client.unregisterModel("llama"));
        const limited = await client.changeModel("llama", { memoryLimitBytes: null });
        const stats = await client.stats();
        const stale = found.revision - 1;
        const mismatches = [
          await codeOf(() => client.change(region, { labels: { other: "z" }, ifMatch: stale })),
          await codeOf(() => again.seal({ ifMatch: stale })),
          await codeOf(() => client.delete(region, { ifMatch: stale })),
          await codeOf(() => client.changeModel("llama", { memoryLimitBytes: 1, ifMatch: limited.revision - 1 })),
          await codeOf(() => client.unregisterModel("llama", { drain: true, ifMatch: limited.revision - 1 })),
        ];
        const current = await client.change(region, { labels: { other: "y" }, ifMatch: found.revision });
        region.close();
        again.close();
        const deleted = await client.delete(region, { ifMatch: current.revision });
        const gone = await codeOf(() => client.get("a", { model: "llama" }));
        await client.unregisterModel("llama", { drain: true });
        tell({
          limit: model.pools, created: [region.isCreated, again.isCreated], ids: again.id === region.id,
          names, listed, models, owner: changed.owner, labels: changed.labels, byId: byId.id === found.id,
          inUse: [found.inUse, found.hasWriters], inUseCode: inUse, limited: limited.pools.map(({ pool, limitBytes }) => [pool, limitBytes]),
          open: stats.regions.open, sent: stats.http.sentBytes > 0, deleted: deleted.state, freed: deleted.freedBytes > 0, gone, mismatches,
          noModel: await codeOf(() => client.model("llama")),
        });
      `,
    );
    expect(seen).toEqual({
      limit: [{ pool: "host", limitBytes: GiB, usedBytes: 0, drainingBytes: 0 }],
      created: [true, false],
      ids: true,
      names: ["a"],
      listed: [false, 1, ["data"]],
      models: ["default", "llama"],
      owner: { kind: "persist" },
      labels: { other: "y" },
      byId: true,
      inUse: [true, true],
      inUseCode: "model-in-use",
      limited: [["host", null]],
      open: 2,
      sent: true,
      deleted: "deleted",
      freed: true,
      gone: "region-not-found",
      mismatches: Array(5).fill("revision-mismatch"),
      noModel: "model-not-found",
    });
  });
}
