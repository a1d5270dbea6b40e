/** Files that the Node client maps where they lie: what they cost, how they are leased, and what is said of one that changed. */

import { afterAll, beforeAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { ModelFolder } from "../harness/load.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

const folder = new ModelFolder();
let server: TestServer;
beforeAll(async () => {
  server = await startServer({ env: { TENSORD_MODEL_ROOTS: folder.path } });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
  assertNothingLeft();
});

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient)(
    `${runtime}: a mapped file is leased by request, referred to, held, and refused once it has changed`,
    async () => {
      const path = folder.writeTensor(`w-${runtime}.safetensors`, Buffer.alloc(10_000, 3));
      const seen = await runProgram<Record<string, unknown>>(
        runtime,
        { TENSORD_URL: `unix://${server.instance.socket}` },
        `
      import { execFileSync } from "node:child_process";
      import { renameSync, statSync, truncateSync, writeFileSync, readFileSync } from "node:fs";
      const path = ${JSON.stringify(path)};
      const client = await connect();
      const failure = (action) => Promise.resolve().then(action).then(() => ["no error"], ({ code, detail, hint }) => [code, detail, hint]);
      const operation = await client.load(path, { mode: "map" });
      await operation.wait();
      const { mode, reason, totalBytes } = operation.descriptor;
      const region = await client.loadModel(path, { mode: "map" });
      const { ino, mtimeNs } = statSync(path, { bigint: true });
      const { storage } = region.descriptor;
      const detail = await client.getById(region.id);
      const bytes = region.tensor("w").bytes();
      bytes[0] = 9;
      const reference = region.tensor("w").ref();
      const opened = await client.openWhenFree(JSON.parse(JSON.stringify(reference)));
      const shared = await client.loadModel(path, { mode: "map", strict: true });
      const order = await shared.advise("sequential");
      const { byteSize, residentBytesBefore } = await shared.advise("willneed");
      const resident = shared.residentBytes();
      const pages = [order === undefined, residentBytesBefore <= byteSize, resident > 0 && resident <= byteSize, await shared.flush()];
      const dirty = (await failure(() => region.advise("dontneed")))[0];
      const left = await shared.advise("dontneed");
      pages.push(left.residentBytesAfter <= byteSize, shared.tensor("w").bytes()[77]);
      shared.close();
      const held = await client.hold("w-${runtime}");
      const leases = (await client.getById(region.id)).leases;
      renameSync(path, path + ".old");
      writeFileSync(path, readFileSync(path + ".old"));
      tell({
        operation: [mode, reason, totalBytes],
        storage: [storage.kind, storage.path === path, storage.ino === String(ino), storage.mtimeNs === String(mtimeNs), storage.immutable],
        detail: [detail.inUse, detail.leases, detail.unknownHolders, region.attachedBy],
        bytes: [bytes.length, bytes[1], readFileSync(path).at(-1)],
        reference: [reference.storage, reference.path, opened.bytes()[9_999], (await failure(() => client.open(reference)))[0]],
        held: [held.path === path, leases >= 3],
        pages,
        dirty,
        closed: await failure(async () => shared.residentBytes()).then(([code]) => code),
        changed: await failure(() => client.attach("w-${runtime}")),
        old: region.tensor("w").bytes()[2],
        stale: (await failure(() => client.openWhenFree(reference)))[0],
        both: (await failure(() => client.loadModel(path, { mode: "map", storage: "shm" })))[0],
        wrong: (await failure(() => client.load(path, { mode: "mapped" })))[0],
      });
      client.close();
    `,
      );
      expect(seen).toEqual({
        operation: ["map", "it was asked for", 0],
        storage: ["file", true, true, true, false],
        detail: [true, 1, false, "name"],
        bytes: [10_000, 3, 3],
        reference: ["file", null, 3, "storage-unavailable"],
        held: [true, true],
        pages: [true, true, true, true, true, 3],
        dirty: "validation-failed",
        closed: "closed",
        changed: [
          "stale-ref",
          expect.stringContaining("is replaced since it was loaded"),
          expect.stringContaining("load it again"),
        ],
        old: 3,
        stale: "stale-ref",
        both: "validation-failed",
        wrong: "validation-failed",
      });
    },
  );

  testWith(needsNodeClient)(
    `${runtime}: who reads pages that were cut off ends by SIGBUS, and the server goes on`,
    async () => {
      const path = folder.writeTensor(`cut-${runtime}.safetensors`, Buffer.alloc(100_000, 3));
      const child = `
      const client = await connect();
      const region = await client.loadModel(${JSON.stringify(path)}, { mode: "map" });
      const bytes = region.tensor("w").bytes();
      const { truncateSync } = await import("node:fs");
      truncateSync(${JSON.stringify(path)}, 100);
      tell(bytes.at(-1));
    `;
      const ended = runProgram(runtime, { TENSORD_URL: `unix://${server.instance.socket}` }, child);
      await expect(ended).rejects.toThrow("the program ended with 135");
      expect(await server.api.findByName(`cut-${runtime}`)).toMatchObject({ storage: { changed: "modified" } });
    },
  );
}
