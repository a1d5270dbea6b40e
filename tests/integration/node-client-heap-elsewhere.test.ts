/** A program of the Node client that shares no memory with its server: what it makes is in heap storage without being asked for. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsRoot, testWith } from "../harness/instance-needs.ts";
import { NodeProgram, needsNodeClient, prelude, type Runtime, runtimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

const needsNamespaces = needsRoot ?? (Bun.which("unshare") === null ? "needs unshare(1)" : undefined);
/** An empty directory in the place of the server's: with a server that is known by TCP alone it is another host. */
const elsewhere = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$0" "$@"'];

const start = (runtime: Runtime, url: string, source: string) =>
  new NodeProgram([...elsewhere, ...runtimes[runtime], prelude + source], { TENSORD_URL: url });

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  for (const storages of ["", "memfd,heap"]) {
    testWith(needsNodeClient, needsNamespaces)(
      `${runtime}: what it makes is made in heap storage and read everywhere, of a server that has ${storages || "all"}`,
      async () => {
        await using server = await startServer({ env: { TENSORD_PORT: "0", TENSORD_STORAGES: storages } });
        await using program = start(
          runtime,
          await server.readUrl(),
          `const warnings = [];
           process.on("warning", ({ name, message }) => name === "TensordWarning" && warnings.push(message));
           const client = await connect();
           for (const name of ["first", "second"]) {
             const region = await client.create(name, new Float32Array([1, 2]), { lingerMs: 600_000 });
             region.tensor().array()[1] = 7;
             await region.seal({ checksum: true });
             tell([region.attachedBy, region.descriptor.storage.kind, (await client.verify(region)).ok]);
             region.close();
           }
           const built = await client.getOrCreate("built", () => new Float32Array([3]));
           tell([built.isCreated, built.attachedBy, [...built.tensor().array()]]);
           const again = await client.attach("first");
           tell([...again.tensor().array()]);
           await new Promise((resolve) => setTimeout(resolve, 1));
           tell(warnings);
           const names = [];
           for await (const { name } of client.list()) names.push(name);
           tell(names.sort());
           tell(await codeOf(() => client.create("asked", new Float32Array(1), { ttlMs: 600_000, storage: "memfd" })));
           tell(await codeOf(() => client.ring({ slots: 1, slotBytes: 64, ttlMs: 600_000 })));
           await receive();
           client.close();`,
        );
        for (let count = 0; count < 2; count++) expect(await program.hear()).toEqual(["copy", "heap", true]);
        expect(await program.hear()).toEqual([true, "copy", [3]]);
        expect(await program.hear()).toEqual([1, 7]);
        expect(await program.hear()).toEqual([expect.stringContaining(`with tensord on ${await server.readUrl()}`)]);
        expect(await program.hear()).toEqual(["built", "first", "second"]);
        expect(await program.hear()).toBe("wrong-namespace");
        expect(await program.hear()).toBe("storage-unavailable");
        const second = await server.api.findByName("second");
        expect(second).toMatchObject({ state: "sealed", storage: { kind: "heap" } });
        await program.say("end");
        await program.end();
      },
    );
  }

  testWith(needsNodeClient, needsNamespaces)(
    `${runtime}: where the server has no heap the error says what is not here`,
    async () => {
      await using server = await startServer({ env: { TENSORD_PORT: "0", TENSORD_STORAGES: "shm,memfd" } });
      await using program = start(
        runtime,
        await server.readUrl(),
        `const client = await connect();
         tell(await codeOf(() => client.create("made", new Float32Array(1), { ttlMs: 600_000 })));
         client.close();`,
      );
      expect(await program.hear()).toBe("wrong-namespace");
      expect(await server.api.list()).toEqual([]);
      await program.end();
    },
  );
}
