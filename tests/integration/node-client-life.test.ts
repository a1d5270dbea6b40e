/** How long what the Node client maps lasts: past close, past its region, and not past its process. */

import { afterAll, expect } from "bun:test";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";

const hour = 3_600_000;
const vector = [{ name: "data", dtype: "U8" as const, shape: [4096] }];

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: arrays outlive their region, and keep its lease until they are collected`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("kept", new Float32Array([1, 2, 3]), { ttlMs: 600_000 });
        // Held by nothing else, not even by what an earlier line left on the stack.
        const held = {};
        await (async () => { held.array = region.tensor().array("F32").subarray(1); })();
        const tensor = region.tensor();
        region.close();
        region.close();
        tell({
          closed: [await codeOf(() => tensor.array()), await codeOf(() => tensor.ref()), await codeOf(() => region.seal())],
          isClosed: region.isClosed,
        });
        await receive();
        await collect();
        await (async () => { held.array[0] = 5; tell(Array.from(held.array)); })();
        await receive();
        held.array = undefined;
        for (;;) {
          await collect();
          if ((await client.getById(region.id)).inUse === false) break;
        }
        tell("let go");
      `,
    );
    expect(await program.hear()).toEqual({ closed: ["closed", "closed", "closed"], isClosed: true });
    expect((await server.api.findByName("kept"))?.in_use).toBe(true);
    await program.say("collect");
    expect(await program.hear()).toEqual([5, 3]);
    await program.say("drop");
    expect(await program.hear()).toBe("let go");
  });

  test(`${runtime}: a region that nobody closed lets go when it is collected`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const before = await (async () => {
          const region = await client.create("lost", new Uint8Array(10), { ttlMs: 600_000 });
          const { inUse } = await client.get("lost");
          // Used once more, or it may have been collected before the server was asked.
          return inUse && region.isWritable;
        })();
        for (;;) {
          await collect();
          if ((await client.get("lost")).inUse === false) break;
        }
        tell(before);
      `,
    );
    expect(seen).toBe(true);
  });

  test(`${runtime}: closed and without arrays, a region is let go at once`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("short", new Uint8Array(100_000).fill(3), { ttlMs: 600_000 });
        region.close();
        const { inUse, hasWriters } = await client.get("short");
        const again = await client.attach("short", { strict: true });
        const strict = again.tensor().array("U8")[99_999];
        tell({ inUse, hasWriters, strict, both: await codeOf(() => client.attach("short", { strict: true, writable: true })) });
      `,
    );
    expect(seen).toEqual({ inUse: false, hasWriters: false, strict: 3, both: "validation-failed" });
  });

  test(`${runtime}: a region's memory cannot be transferred away from under its mapping`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("pinned", new Uint8Array([1, 2]), { ttlMs: 600_000 });
        const array = region.tensor().array("U8");
        const { buffer } = array;
        for (const move of [() => buffer.transfer(), () => buffer.transferToFixedLength(4), () => structuredClone(buffer, { transfer: [buffer] })]) {
          await codeOf(move);
        }
        tell({ stays: Array.from(array), same: region.tensor().array().buffer === buffer });
      `,
    );
    expect(seen).toEqual({ stays: [1, 2], same: true });
  });

  test(`${runtime}: a stray write through a read-only attachment stays private`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const writer = await client.create("open", new Uint8Array(8192), { ttlMs: 600_000 });
        const reader = await client.attach("open");
        const [mine, theirs] = [reader.tensor().array("U8"), writer.tensor().array("U8")];
        theirs[0] = 1;
        const before = mine[0];
        mine[4096] = 9;
        const kept = theirs[4096];
        await writer.seal();
        theirs[1] = 5;
        tell({ before, kept, sealed: [mine[0], mine[1]], own: theirs[1], fresh: (await client.attach("open")).tensor().array("U8")[1] });
      `,
    );
    expect(seen).toEqual({ before: 1, kept: 0, sealed: [1, 0], own: 5, fresh: 0 });
  });

  test(`${runtime}: a seal that is refused leaves the region writable; the next one stands`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("contested", new Uint8Array(4096), { ttlMs: 600_000 });
        const array = region.tensor().array("U8");
        const other = await client.attach("contested", { writable: true });
        const refused = await codeOf(() => region.seal());
        array[0] = 1;
        const seenThere = await (async () => other.tensor().array("U8")[0])();
        const { isWritable } = region;
        other.close();
        for (;;) {
          await collect();
          if (await codeOf(() => region.seal({ stockWritable: true })) === "no error") break;
        }
        const twice = await codeOf(() => region.seal());
        tell({ refused, seenThere, isWritable, after: region.isWritable, state: region.state, twice,
          writer: await codeOf(() => client.attach("contested", { writable: true })) });
      `,
    );
    expect(seen).toEqual({
      refused: "region-has-writers",
      seenThere: 1,
      isWritable: true,
      after: false,
      state: "sealed",
      twice: "region-sealed",
      writer: "region-sealed",
    });
  });

  test(`${runtime}: SIGKILL of a process that maps a region frees its lease`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.attach("held", { writable: true });
        globalThis.array = region.tensor().array();
        tell("mapped");
        await receive();
      `,
    );
    const region = await server.api.create({ name: "held", tensors: vector, ttl_ms: hour });
    expect(await program.hear()).toBe("mapped");
    expect(await server.api.get(region.id)).toMatchObject({ in_use: true, has_writers: true });
    expect((await server.api.delete(region.id)).state).toBe("draining");
    await program.kill();
    await server.api.untilGone(region.id);
  });
}
