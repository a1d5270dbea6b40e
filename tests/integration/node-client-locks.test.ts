/** Read-write locks of tensors: in one process, across processes and languages, and at the death of a holder. */

import { afterAll, expect } from "bun:test";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  needsNodeClient,
  type Runtime,
  runProgram,
  runtimes,
  startProgram,
  startPython,
} from "../harness/node-program.ts";

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: readers share, a writer excludes, and only those of the same tensor`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("w", { a: new Float32Array(4), b: new Float32Array(4), none: { dtype: "F32", shape: [0] } });
        const [a, b, none] = ["a", "b", "none"].map((name) => region.tensor(name));
        const now = { timeoutMs: 0 };
        const first = await a.lockRead();
        const second = await a.lockRead(now);
        const whileRead = await codeOf(() => a.lockWrite(now));
        const neighbour = await b.lockWrite(now);
        first.release();
        first.release();
        const stillRead = await codeOf(() => a.lockWrite({ timeoutMs: 20 }));
        const waiting = a.lockWrite({ timeoutMs: 180_000 });
        second.release();
        const writer = await waiting;
        const whileWritten = await codeOf(() => a.lockRead(now));
        writer[Symbol.dispose]();
        const [one, two] = [await none.lockWrite(now), await none.lockWrite(now)];
        const reader = await client.attach("w");
        const other = await reader.tensor("a").lockWrite(now);
        other.release();
        neighbour.release();
        reader.close();
        const negative = await codeOf(() => a.lockRead({ timeoutMs: -1 }));
        await region.seal();
        const sealed = await codeOf(() => a.lockWrite(now));
        (await a.lockRead(now)).release();
        await client.delete(region);
        const deleted = await codeOf(() => a.lockRead(now));
        region.close();
        tell({ whileRead, stillRead, whileWritten, kinds: [writer.kind, second.kind], released: [first.isReleased, one.isReleased],
          negative, sealed, deleted, closed: await codeOf(() => a.lockRead()) });
      `,
    );
    expect(seen).toEqual({
      whileRead: "deadline-exceeded",
      stillRead: "deadline-exceeded",
      whileWritten: "deadline-exceeded",
      kinds: ["write", "read"],
      released: [true, true],
      negative: "validation-failed",
      sealed: "region-sealed",
      deleted: "stale-ref",
      closed: "closed",
    });
  });

  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: a lock excludes Python's, both ways, and ends with a killed process`,
    async () => {
      await using server = await lendServer();
      await using program = startProgram(
        runtime,
        server.env,
        `
          const client = await connect();
          const region = await client.create("w", new Float32Array(4), { ttlMs: 600_000 });
          const lock = await region.tensor().lockWrite();
          tell("locked");
          await receive();
          lock.release();
          await receive();
          const theirs = await codeOf(() => region.tensor().lockRead({ timeoutMs: 0 }));
          tell(theirs);
          await receive();
          const mine = await region.tensor().lockWrite({ timeoutMs: 180_000 });
          tell("locked again");
          await receive();
        `,
      );
      expect(await program.hear()).toBe("locked");
      await using python = startPython(
        server.env,
        `
          tensor = tensord.attach("w", writable=True)["data"]
          try:
              tensor.lock_read(timeout=0)
              tell("free")
          except tensord.DeadlineExceeded:
              tell("locked")
          receive()
          lock = tensor.lock_write(timeout=180)
          tell("mine")
          receive()
        `,
      );
      expect(await python.hear()).toBe("locked");
      await program.say("release");
      await python.say("lock");
      expect(await python.hear()).toBe("mine");
      await program.say("try");
      expect(await program.hear()).toBe("deadline-exceeded");
      await python.kill();
      await program.say("lock");
      expect(await program.hear()).toBe("locked again");
    },
  );

  test(`${runtime}: a wait for a lock leaves the event loop its turns`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<{ turns: number }>(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("w", new Float32Array(4));
        const held = await region.tensor().lockWrite();
        let turns = 0;
        const waiting = region.tensor().lockWrite();
        // Only turns of the loop, which a blocked one would not have, let go of the lock.
        while (turns < 100) {
          await new Promise((resolve) => setImmediate(resolve));
          turns += 1;
        }
        held.release();
        (await waiting).release();
        tell({ turns });
      `,
    );
    expect(seen.turns).toBe(100);
  });
}
