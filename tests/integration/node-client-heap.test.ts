/**
 * Regions that no process maps, in the Node client: memory of its own until the seal uploads it, and one download for all that
 * attach it. On a server that has nothing else too, whose workers share no memory with it.
 */

import { afterAll, beforeAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import {
  needsNodeClient,
  type Runtime,
  runProgram,
  runPython,
  runtimes,
  startProgram,
  startPython,
} from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

let server: TestServer;
/** Plays a host without shared memory: a worker finds nothing of its regions, by name or by descriptor. */
let bare: TestServer;
beforeAll(async () => {
  [server, bare] = await Promise.all([startServer(), startServer({ env: { TENSORD_STORAGES: "heap" } })]);
});
afterAll(async () => {
  await Promise.all([server[Symbol.asyncDispose](), bare[Symbol.asyncDispose]()]);
  assertNothingLeft();
});

const environment = ({ instance }: TestServer) => ({ TENSORD_URL: `unix://${instance.socket}` });

/** What the program has of copies: descriptors, and mappings. */
const counting = `
  import { readdirSync, readFileSync, readlinkSync } from "node:fs";
  const copies = () => readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync("/proc/self/fd/" + fd)];
    } catch {
      return [];
    }
  }).filter((target) => target.includes("tensord-copy")).length;
  const mapped = () => readFileSync("/proc/self/maps", "utf8").split("\\n").filter((line) => line.includes("tensord-copy")).length;
  const until = async (condition) => { while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 5)); };
`;

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient)(
    `${runtime}: what is filled here is uploaded by the seal, shared by no one before, and what everybody reads after it`,
    async () => {
      await using program = startProgram(
        runtime,
        environment(server),
        `
        ${counting}
        const client = await connect();
        const name = "weights-${runtime}";
        const made = await client.create(name, { w: new Float32Array(300_000), b: Float64Array.of(1, 2) }, { storage: "heap" });
        const array = made.tensor("w").array("F32");
        array.fill(2);
        tell([made.attachedBy, made.isWritable, made.descriptor.storage.kind, copies()]);
        tell(await codeOf(() => client.attach(name)));
        tell(await codeOf(() => client.seal([made], { ifMatch: [77] })));
        tell(made.isWritable);
        array[0] = 7;
        await receive();
        await made.seal({ checksum: true });
        tell(await client.verify(made).then(({ ok }) => ok));
        array[1] = 9;
        tell([made.isWritable, array[0]]);
        tell(made.tensor("w").ref());
        // The server has each download open for a moment longer, and the reader's may begin at any time.
        let seen;
        await until(async () => !(seen = await client.get(name)).inUse);
        tell({ inUse: seen.inUse, holders: seen.holders, unknownHolders: seen.unknownHolders });
        await receive();
        await client.delete(made);
        client.close();
        `,
      );
      expect(await program.hear()).toEqual(["copy", true, "heap", 1]);
      expect(await program.hear()).toBe("storage-unavailable");
      expect(await program.hear()).toBe("revision-mismatch");
      expect(await program.hear()).toBe(true);
      await using reader = startProgram(
        runtime,
        environment(server),
        `
        ${counting}
        const client = await connect();
        tell("waits");
        const name = "weights-${runtime}";
        const [one, two] = await Promise.all([1, 2].map(() => client.attach(name, { timeoutMs: 120_000 })));
        const [b] = two.tensor("b").array("F64");
        tell([one.attachedBy, one.tensor("w").array("F32")[0], one.tensor("w").array("F32")[1], b, copies(), mapped()]);
        one.close();
        const reference = await receive();
        // Here already, so at once; elsewhere it is downloaded.
        const opened = client.open(reference);
        tell(opened.array("F32")[0]);
        two.close();
        opened.close();
        await until(async () => (await collect(), copies() === 0 && mapped() === 0));
        tell(await codeOf(() => client.open(reference)));
        const again = await client.openWhenFree(reference);
        tell([again.array("F32")[0], await codeOf(() => client.openWhenFree(reference, { writable: true }))]);
        tell(await codeOf(() => client.attach(name, { writable: true })));
        client.close();
        `,
      );
      expect(await reader.hear()).toBe("waits");
      await program.say("seal");
      expect(await program.hear()).toBe(true);
      expect(await program.hear()).toEqual([false, 7]);
      const reference = await program.hear();
      expect(reference).toMatchObject({ storage: "heap", path: null, instance: server.instance.name });
      // Nobody maps anything of it, and nobody says so.
      expect(await program.hear()).toEqual({ inUse: false, holders: [], unknownHolders: false });
      expect(await reader.hear()).toEqual(["copy", 7, 2, 1, 1, 2]);
      await reader.say(reference);
      expect(await reader.hear()).toBe(7);
      expect(await reader.hear()).toBe("storage-unavailable");
      expect(await reader.hear()).toEqual([7, "region-sealed"]);
      expect(await reader.hear()).toBe("region-sealed");
      await reader.end();
      await program.say("over");
      await program.end();
    },
  );

  testWith(needsNodeClient)(
    `${runtime}: the same program runs where the server shares no memory, and has no rings there`,
    async () => {
      const told = await runProgram(
        runtime,
        environment(bare),
        `
      const client = await connect();
      const made = await client.getOrCreate("built-${runtime}", () => ({ w: Float32Array.of(1, 2, 3) }), { lingerMs: 60_000 });
      const [again] = await client.attach(["built-${runtime}"]);
      const ring = await codeOf(() => client.ring({ name: "ring" }));
      const left = await codeOf(() => client.get("ring"));
      const shm = await codeOf(() => client.create("other", new Uint8Array(1), { storage: "shm" }));
      tell([made.attachedBy, [...again.tensor().array("F32")], again.isCreated, ring, left, shm]);
      client.close();
      `,
      );
      expect(told).toEqual([
        "copy",
        [1, 2, 3],
        false,
        "storage-unavailable",
        "region-not-found",
        "storage-unavailable",
      ]);
      const python = await runPython(
        environment(bare),
        `
      with tensord.connect() as client:
          with client.attach("built-${runtime}") as region:
              tell([region.attached_by, region.numpy().tolist()])
          client.delete("built-${runtime}")
      `,
      );
      expect(python).toEqual(["copy", [1, 2, 3]]);
    },
  );

  testWith(needsNodeClient)(
    `${runtime}: an open region that the kernel has made final says so, and what to do`,
    async () => {
      // What a seal does that is refused in a later step: F_ADD_SEALS with F_SEAL_WRITE (<linux/fcntl.h>).
      await using maker = startPython(
        environment(server),
        `
      import fcntl
      client = tensord.connect()
      made = client.create("final-${runtime}", np.arange(4.0), storage="memfd")
      made.close()
      fcntl.fcntl(client._api.broker.attach(made.id, writable=True, lease="consumer").fd, 1033, 8)
      tell("final")
      receive()
      `,
      );
      expect(await maker.hear()).toBe("final");
      const told = await runProgram<{ code: string; detail: string; hint: string; state: string }>(
        runtime,
        environment(server),
        `
      const client = await connect();
      const { code, detail, hint } = await client.attach("final-${runtime}", { writable: true }).catch((error) => error);
      tell({ code, detail, hint });
      client.close();
      `,
      );
      expect(told.code).toBe("region-sealed");
      expect(told.detail).toContain("it is open, but the kernel has made its bytes final");
      expect(told.hint).toStartWith("seal it again");
      await maker.say("over");
      await maker.end();
    },
  );
}
