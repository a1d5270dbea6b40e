/** The Node client's hold: a reader that knows nothing of leases finds a region by a path, which is in use meanwhile. */

import { afterAll, expect } from "bun:test";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: a region is in use while its path is held, with a name or without`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `
        const { readFileSync } = await import("node:fs");
        const { inspect } = await import("node:util");
        const client = await connect();
        const isUsed = async (name) => (await client.get(name)).inUse;
        const told = {};
        for (const [name, options] of [["named", {}], ["private", { private: true }], ["memfd", { storage: "memfd" }]]) {
          const made = await client.create(name, Uint8Array.of(1, 2, 3), { ttlMs: 600_000, ...options });
          await made.seal();
          made.close();
          const before = await isUsed(name);
          const held = await client.hold(name);
          const { path } = held;
          const isItsName = path === held.descriptor.storage.path;
          const read = [...readFileSync(path).subarray(-3)];
          const during = await isUsed(name);
          held.close();
          held.close();
          let code = "none";
          try { held.path; } catch (error) { code = error.code; }
          const shows = [inspect(held).startsWith("PathHold of"), held.isClosed];
          told[name] = [before, isItsName, path.startsWith("/proc/self/fd/"), read, during, await isUsed(name), code, shows];
        }
        const heap = await client.create("heap", Uint8Array.of(1), { ttlMs: 600_000, storage: "heap" });
        await heap.seal();
        told.heap = await client.hold(heap.descriptor).catch(({ code, detail }) => [code, detail]);
        told.nobody = await client.hold("nobody").catch(({ code }) => code);
        tell(told);
      `,
    );
    const seenOf = (isItsName: boolean) => [
      false,
      isItsName,
      !isItsName,
      [1, 2, 3],
      true,
      false,
      "closed",
      [true, true],
    ];
    expect(seen as unknown).toEqual({
      named: seenOf(true),
      private: seenOf(false),
      memfd: seenOf(false),
      heap: ["feature-unavailable", expect.stringContaining("whose bytes no file has")],
      nobody: "region-not-found",
    });
  });
}
