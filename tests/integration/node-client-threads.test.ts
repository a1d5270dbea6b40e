/** Worker threads that use the Node client and end, in whichever way, without closing anything: nothing of theirs stays. */

import { afterAll, expect } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";

afterAll(endLentServers);

const endings = ["return", "exit", "throw", "terminate"] as const;

/** A thread that maps a region, holds a lock and a slot, keeps arrays, and then ends in the way that it was told. */
const thread = join(root, ".tmp/node-client-threads/thread.mjs");
mkdirSync(dirname(thread), { recursive: true });
writeFileSync(
  thread,
  `
    import { parentPort, workerData } from "node:worker_threads";
    import { connect } from "@tensord/client";
    const { ending, slot } = workerData;
    const client = await connect();
    const region = await client.attach("w");
    globalThis.kept = [region, region.tensor().array("F32"), client.open(slot), await region.tensor().lockRead()];
    // What was let go of before is not let go of again.
    for (let round = 0; round < 3; round++) (await client.attach("w")).close();
    await client.create("of-the-thread-" + ending, new Uint8Array(1));
    parentPort.postMessage("mapped");
    if (ending === "exit") process.exit(0);
    if (ending === "throw") setImmediate(() => { throw new Error("meant") });
    if (ending === "terminate") setInterval(() => undefined, 1000);
    else client.close();
  `,
);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: a thread that ends leaves no mapping, no lease, no lock and no session`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        import { readdirSync, readFileSync, readlinkSync } from "node:fs";
        import { Worker } from "node:worker_threads";
        const mapped = () => readFileSync("/proc/self/maps", "utf8").split("\\n").filter((line) => /tensord\\./.test(line)).length;
        const opened = () => readdirSync("/proc/self/fd").filter((fd) => {
          try {
            return /tensord\\./.test(readlinkSync("/proc/self/fd/" + fd));
          } catch {
            return false;
          }
        }).length;
        const client = await connect();
        const made = await client.create("w", new Float32Array(1 << 18), { ttlMs: 600_000 });
        const ring = await client.ring({ slots: 1, slotBytes: 4096 });
        const before = [mapped(), opened()];
        const seen = {};
        for (const ending of ${JSON.stringify(endings)}) {
          const slot = await ring.put(new Uint8Array(8));
          const worker = new Worker(${JSON.stringify(thread)}, { workerData: { ending, slot }, execArgv: [] });
          worker.on("error", () => undefined);
          const exited = new Promise((resolve) => worker.once("exit", resolve));
          await new Promise((resolve) => worker.once("message", resolve));
          if (ending === "terminate") worker.terminate();
          await exited;
          // The ring's only slot, and the whole tensor, are free again.
          const again = await ring.put(new Uint8Array(8), { timeoutMs: 180_000 }).then(() => "free", ({ code }) => code);
          const lock = await made.tensor().lockWrite({ timeoutMs: 180_000 });
          lock.release();
          for (const end = Date.now() + 180_000; Date.now() < end && (mapped() > before[0] || opened() > before[1]); ) await new Promise((go) => setTimeout(go, 20));
          const left = async () => (await client.list({ name: "of-the-thread-" + ending }).next()).value;
          for (const end = Date.now() + 180_000; Date.now() < end && (await left()) !== undefined; ) await new Promise((go) => setTimeout(go, 20));
          seen[ending] = [mapped() - before[0], opened() - before[1], again, (await left())?.state ?? "gone"];
        }
        // Nor a lease: the region is gone with the last mapping here.
        made.close();
        await client.delete(made);
        let draining;
        for (const end = Date.now() + 180_000; Date.now() < end && (draining = (await client.stats()).regions.draining) !== 0; ) await collect();
        tell({ seen, draining });
      `,
    );
    expect(seen).toEqual({
      seen: Object.fromEntries(endings.map((ending) => [ending, [0, 0, "free", "gone"]])),
      draining: 0,
    });
  });
}
