/** Hand-offs as the Node client makes them: how long one waits for its consumer, and for what else that is refused. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: the server is told how long a hand-off waits for its consumer`, async () => {
    await using server = await startServer();
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
    await using server = await startServer();
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
}
