/** Hand-offs as the Node client makes them: how long one waits for its consumer, and for what else that is refused. */

import { afterAll, expect } from "bun:test";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: the server is told how long a hand-off waits for its consumer`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("result", new Uint8Array(1), { lingerMs: 0, handoffMs: 2_500 });
        const ring = await client.ring({ slots: 1, slotBytes: 8, lingerMs: 0, handoffMs: 2_500 });
        const built = await client.getOrCreate("built", () => new Uint8Array(1), { lingerMs: 0, handoffMs: 2_500 });
        const changed = [];
        for (const owner of [{ lingerMs: 0, handoffMs: 7_000 }, { lingerMs: 0 }, { lingerMs: 1_000, handoffMs: 0 }]) {
          changed.push((await client.change(region, owner)).owner);
        }
        const made = [region.descriptor.owner, (await client.getById(ring.id)).owner, built.descriptor.owner];
        tell({ made, changed });
      `,
    );
    const owner = (handoffMs: number, lingerMs = 0) => ({ kind: "linger", lingerMs, handoffMs });
    expect(seen).toEqual({
      made: [owner(2_500), owner(2_500), owner(2_500)],
      changed: [owner(7_000), owner(60_000), owner(0, 1_000)],
    });
  });

  test(`${runtime}: a hand-off's wait is refused for what does not linger, before anything is built`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const never = () => { throw new Error("nothing is built"); };
        const said = new Set();
        for (const owner of [{}, { ttlMs: 60_000 }, { persist: true }]) {
          const options = { handoffMs: 5, ...owner };
          for (const call of [
            () => client.create("result", new Uint8Array(1), options),
            () => client.getOrCreate("result", never, options),
            () => client.ring({ slots: 1, slotBytes: 8, ...options }),
            () => client.change("reg_a", options),
          ]) said.add(await call().then(() => "no error", (error) => error.code + ": " + error.detail));
        }
        const negative = await codeOf(() => client.create("result", new Uint8Array(1), { lingerMs: 0, handoffMs: -1 }));
        tell({ said: [...said], negative, regions: (await client.stats()).regions.open });
      `,
    );
    expect(seen).toEqual({
      said: ["validation-failed: Cannot let a hand-off wait: handoffMs is there without lingerMs, want both"],
      negative: "validation-failed",
      regions: 0,
    });
  });

  test(`${runtime}: a stream of hand-offs passes through a pool that holds a few, and what is said of each ends it`, async () => {
    await using server = await startServer({ env: { TENSORD_MEMORY_LIMIT_BYTES: String(32 * 2 ** 20) } });
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const producer = await connect();
        const consumer = await connect();
        let frame = 0;
        for (; frame < 60; frame++) {
          const made = await producer.create("frame-" + frame, { x: { dtype: "U8", shape: [2 ** 20] } }, { lingerMs: 0, handoffMs: 3_600_000 });
          await made.seal();
          const region = await consumer.attach("frame-" + frame);
          region.close();
          made.close();
        }
        const left = async () => {
          for await (const _ of consumer.list()) return true;
          return false;
        };
        while (await left());
        tell(frame);
      `,
    );
    expect(seen).toBe(60);
  });

  test(`${runtime}: a hand-off waits for its consumer when its maker has ended, and ends with the maker if it is not sealed`, async () => {
    await using server = await lendServer();
    for (const [name, end] of [
      ["sealed", "await region.seal();"],
      ["open", ""],
    ]) {
      const make = `
        const client = await connect();
        const region = await client.create("${name}", new Float64Array(8).fill(7), { lingerMs: 0, handoffMs: 3_600_000 });
        ${end}
        tell(region.descriptor.session);
        process.exit();
      `;
      await runProgram(runtime, server.env, make);
    }
    const states = async () => (await server.api.list()).map(({ name, state }) => `${name} ${state}`);
    await until("what is open has ended", async () => (await states()).join() === "sealed sealed");
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.attach("sealed");
        tell(region.tensor().array("F64")[0]);
        region.close();
      `,
    );
    expect(seen).toBe(7);
    await until("it is gone when its consumer lets go", async () => (await states()).length === 0);
  });

  test(`${runtime}: who makes a hand-off holds a byte of its own, who builds one uses it too, and an open one has no reference`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        import fs from "node:fs";
        const { trySetLock } = await import("./dist/memory/lock.js");
        // What is kept open can be asked after its region's end, which is at once when its consumer has let go.
        const keep = ({ descriptor }) => fs.openSync(descriptor.storage.path, fs.constants.O_RDWR);
        const isFree = (kept, byte) => {
          // Root may open what is sealed.
          const fd = fs.openSync("/proc/self/fd/" + kept, fs.constants.O_RDWR);
          const free = trySetLock(fd, "write", byte, 1n);
          fs.closeSync(fd);
          return free;
        };
        const lease = 1n << 62n;
        const client = await connect();
        const options = { lingerMs: 0, handoffMs: 3_600_000 };
        const region = await client.create("frame", new Uint8Array(1), options);
        const ring = await client.ring({ slots: 1, slotBytes: 8, ...options });
        const slot = await ring.put(new Uint8Array(1));
        const kept = keep(region);
        const open = [isFree(kept, lease), isFree(kept, lease + 1n), await codeOf(() => region.tensor().ref())];
        const found = await client.attach("frame");
        const attached = await codeOf(() => found.tensor().ref());
        await region.seal();
        const ref = found.tensor().ref();
        found.close();
        const sealed = [isFree(kept, lease), isFree(kept, lease + 1n)];
        const built = await client.getOrCreate("built", () => new Uint8Array(1), options);
        tell({ open, attached, sealed, built: [isFree(keep(built), lease), isFree(keep(built), lease + 1n)], slot: slot.byteSize, ref: ref.byteSize });
      `,
    );
    const open = [true, false, "region-not-sealed"];
    expect(seen).toEqual({
      ...{ open, attached: "region-not-sealed", sealed: [true, false], built: [false, false] },
      ...{ slot: 1, ref: 1 },
    });
  });

  test(`${runtime}: looking takes a hand-off from nobody, and a consumer by reference ends it`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        await client.session();
        const made = await client.create("frame", new Uint8Array([5]), { lingerMs: 0, handoffMs: 3_600_000 });
        await made.seal();
        const reference = made.tensor().ref();
        await made.refresh();
        made.close();
        while ((await client.get("frame")).inUse);
        const ends = async () => {
          for await (const { expiresAt } of client.list()) return expiresAt;
        };
        while ((await ends()) === null);
        const isWaiting = Date.parse(await ends()) > Date.now() + 1_800_000;
        client.open(reference).close();
        while ((await ends()) !== undefined);
        tell(isWaiting);
      `,
    );
    expect(seen).toBe(true);
  });

  test(`${runtime}: a sealed region is mapped though a process bars it, with a lease by request, or, without a session, with a warning`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        import fs from "node:fs";
        const { trySetLock } = await import("./dist/memory/lock.js");
        const warnings = [];
        process.on("warning", ({ code, message }) => code === "mapping-failed" && warnings.push(message));
        const client = await connect();
        const made = await client.create("barred", new Uint8Array([5]), { ttlMs: 3_600_000 });
        const fd = fs.openSync(made.descriptor.storage.path, "r+");
        await made.seal();
        const reference = made.tensor().ref();
        made.close();
        const isBarred = trySetLock(fd, "write", 1n << 62n, 1n);
        const region = await client.attach("barred");
        const tensor = client.open(reference);
        const values = [region.tensor().array("U8")[0], tensor.array("U8")[0]];
        (await region.lockMemory()).release();
        const leases = async () => (await client.get("barred")).leases;
        while ((await leases()) < 2);
        const { leaseBarred, inUse } = await client.get("barred");
        const told = warnings.length;
        region.close();
        tensor.close();
        const alone = await connect({ session: false });
        values.push((await alone.attach("barred")).tensor().array("U8")[0], alone.open(reference).array("U8")[0]);
        while (warnings.length < 2) await new Promise((resolve) => setImmediate(resolve));
        tell({ isBarred, values, leaseBarred, inUse, told, warned: warnings.every((text) => text.includes("write-locks its lease byte")) });
        process.exit();
      `,
    );
    expect(seen).toEqual({
      ...{ isBarred: true, values: [5, 5, 5, 5], leaseBarred: true, inUse: true, told: 0, warned: true },
    });
  });
}
