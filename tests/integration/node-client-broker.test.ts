/**
 * The Node client where a region's name cannot be reached: it maps what the server's broker hands out, and nobody notices but
 * `attachedBy`. Real servers, mount namespaces and users; where neither way leads to the memory, the error says what to do.
 */

import { afterAll, beforeAll, expect } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsReadableCheckout, needsRoot, root, testWith } from "../harness/instance-needs.ts";
import { NodeProgram, needsNodeClient, prelude, type Runtime, runtimes } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

const needsNamespaces = needsRoot ?? (Bun.which("unshare") === null ? "needs unshare(1)" : undefined);

/** A folder outside of the memory's directory, which other namespaces see and other users may enter. */
const door = mkdtempSync(join(tmpdir(), "tensord-door-"));
chmodSync(door, 0o755);

const socket = join(door, "a.sock");
const brokerSocket = join(door, "a.sock.broker");

/** One server for all of it. */
let server: TestServer;
beforeAll(async () => {
  server = await startServer({ env: { TENSORD_SOCKET: socket, TENSORD_BROKER_SOCKET: brokerSocket } });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(door, { recursive: true });
  assertNothingLeft();
});

/** What a client is told of the server: nothing of the broker's socket, which is beside the other one. */
const known = { PATH: process.env.PATH ?? "", TENSORD_URL: `unix://${socket}` };

/** The beginning of a command line that has another `/dev/shm`. */
const elsewhere = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$0" "$@"'];
const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

const counting = `
  import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
  import { inspect } from "node:util";
  const opened = () => readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync("/proc/self/fd/" + fd)];
    } catch {
      return [];
    }
  }).filter((target) => /tensord|memfd:/.test(target)).length;
  const mapped = () => readFileSync("/proc/self/maps", "utf8").split("\\n").filter((line) => /tensord\\.|memfd:tensord/.test(line)).length;
  const describe = (error) => ({ code: error.code, detail: error.detail, hint: error.hint });
  const failureOf = (action) => Promise.resolve().then(action).then((region) => ({ code: "no error", detail: String(region) }), describe);
`;

const start = (runtime: Runtime, prefix: readonly string[], env: Record<string, string>, source: string) =>
  new NodeProgram([...prefix, ...runtimes[runtime], prelude + counting + source], env);

/** A thread that opens a reference that was posted to it, and ends without closing anything. */
const thread = join(root, ".tmp/node-client-broker/thread.mjs");
mkdirSync(dirname(thread), { recursive: true });
writeFileSync(
  thread,
  `
    import { parentPort, workerData } from "node:worker_threads";
    import { connect } from "@tensord/client";
    process.on("warning", ({ message }) => parentPort.postMessage({ warning: message }));
    const client = await connect({ session: false });
    const tensor = client.open(workerData);
    globalThis.kept = [tensor, await tensor.lockRead()];
    parentPort.postMessage({ sum: tensor.array("F32").reduce((sum, value) => sum + value) });
    setInterval(() => undefined, 1000);
  `,
);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient, needsNamespaces)(
    `${runtime}: in another mount namespace everything is as at home, over a restart too`,
    async () => {
      await server.api.create({ name: `open-${runtime}`, byte_size: 8, ttl_ms: 3_600_000 });
      await using program = start(
        runtime,
        elsewhere,
        known,
        `
        import { Worker } from "node:worker_threads";
        const client = await connect(patient);
        const seen = {};
        const found = await client.attach("open-${runtime}", { writable: true });
        found.tensor().array("U8")[0] = 42;
        seen.found = [found.attachedBy, found.isWritable, / by descriptor|, by descriptor/.test(inspect(found))];

        // Made, filled, locked, sealed.
        const made = await client.create("made-${runtime}", { w: new Float32Array([1, 2, 3]), h: new Float32Array(1024) }, { ttlMs: 3_600_000 });
        const kept = made.tensor("w").array("F32");
        seen.made = [made.attachedBy, (await client.getById(made.id)).inUse];
        const lock = await made.tensor("w").lockWrite({ timeoutMs: 180_000 });
        seen.locked = await codeOf(() => made.tensor("w").lockRead({ timeoutMs: 0 }));
        seen.whileLocked = await codeOf(() => made.seal());
        lock.release();
        await made.refresh();
        seen.sealed = [made.state, [...kept], made.attachedBy, made.isWritable];
        (await made.lockMemory()).release();

        // A slot, and a reference in a thread.
        const ring = await client.ring({ slots: 2, slotBytes: 64 });
        const slot = await ring.put(new Float32Array([4, 5]), { timeoutMs: 180_000 });
        const rings = client.rings();
        const values = (tensor) => { const copy = [...tensor.array("F32")]; tensor.close(); return copy; };
        seen.slots = [values(rings.open(slot)), values(client.open(slot)), values(await client.openWhenFree(slot))];
        await ring.put(new Float32Array(2)); await ring.put(new Float32Array(2));
        seen.stale = await codeOf(() => rings.open(slot));
        rings.close();
        const reference = made.tensor("w").ref();
        seen.path = reference.path;
        const before = [opened(), mapped()];
        const worker = new Worker(${JSON.stringify(thread)}, { workerData: structuredClone({ ...reference.toJSON() }), execArgv: [] });
        seen.thread = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
        const exited = new Promise((resolve) => worker.once("exit", resolve));
        worker.terminate();
        await exited;
        for (const end = Date.now() + 180_000; Date.now() < end && (opened() > before[0] || mapped() > before[1]); ) await new Promise((go) => setTimeout(go, 20));
        seen.afterThread = [opened() > before[0], mapped() > before[1]];
        tell(seen);

        // The server goes, and comes back.
        await receive();
        const away = await failureOf(() => client.open(reference));
        const attached = client.attach("made-${runtime}");
        tell(away.code);
        const region = await attached;
        seen.back = [region.attachedBy, [...region.tensor("w").array("F32")], values(client.open(reference))];
        const gone = await client.create(null, new Float32Array(1), { ttlMs: 3_600_000 });
        const last = gone.tensor().ref();
        gone.close();
        await client.delete(gone);
        seen.gone = await codeOf(() => client.open(last));
        client.close();
        for (const each of [found, made, region, ring]) each.close();
        await collect();
        tell({ back: seen.back, gone: seen.gone, closed: await codeOf(() => client.open(reference)), sockets: opened() });
      `,
      );
      expect(await program.hear<object>()).toEqual({
        found: ["descriptor", true, true],
        made: ["descriptor", true],
        locked: "deadline-exceeded",
        whileLocked: "no error",
        sealed: ["sealed", [1, 2, 3], "descriptor", false],
        slots: [
          [4, 5],
          [4, 5],
          [4, 5],
        ],
        stale: "stale-ref",
        path: expect.stringContaining("/tensord."),
        thread: { sum: 6 },
        afterThread: [false, false],
      });
      await server.kill("SIGKILL");
      await program.say("go on");
      expect(await program.hear()).toBe("server-unavailable");
      await server.start();
      expect(await program.hear()).toEqual({
        back: ["descriptor", [1, 2, 3], [1, 2, 3]],
        gone: "stale-ref",
        closed: "closed",
        sockets: 0,
      });
      await program.end();
    },
  );

  testWith(needsNodeClient, needsReadableCheckout())(
    `${runtime}: another user gets what he was handed, of regions without a name too, and no more`,
    async () => {
      chmodSync(socket, 0o666);
      chmodSync(brokerSocket, 0o660);
      await server.api.create({ name: `named-${runtime}`, byte_size: 8, ttl_ms: 3_600_000 });
      await using program = start(
        runtime,
        asNobody,
        known,
        `
        const client = await connect();
        // The broker is not open to this user.
        tell(await failureOf(() => client.attach("named-${runtime}")));
        tell(await failureOf(() => client.create("private-${runtime}", new Float32Array(2), { private: true })));
        await receive();
        const seen = { named: (await client.attach("named-${runtime}")).attachedBy, made: {} };
        const values = (tensor) => { const copy = [...tensor.array("F32")]; tensor.close(); return copy; };
        const references = [];
        for (const [kind, options] of Object.entries({ private: { private: true }, memfd: { storage: "memfd" } })) {
          const region = await client.create(kind + "-${runtime}", new Float32Array([1, 2]), { ...options, ttlMs: 3_600_000 });
          const { path, private: isPrivate } = region.descriptor.storage;
          const reference = region.tensor().ref();
          references.push(reference);
          const lock = await region.tensor().lockWrite({ timeoutMs: 180_000 });
          lock.release();
          const writer = await client.attach(kind + "-${runtime}", { writable: true });
          const refused = await codeOf(() => region.seal());
          writer.close();
          await region.seal();
          seen.made[kind] = {
            region: [region.attachedBy, path, isPrivate, region.state, [...region.tensor().array("F32")]],
            refused,
            reference: [reference.storage, reference.path, values(client.open(reference)), values(client.open(JSON.stringify(reference)))],
            attached: (await client.attach(kind + "-${runtime}")).attachedBy,
            writable: await codeOf(() => client.attach(kind + "-${runtime}", { writable: true })),
          };
        }
        const ring = await client.ring({ slots: 1, slotBytes: 8, storage: "memfd" });
        const rings = client.rings();
        const slot = await ring.put(new Float32Array([3, 4]), { timeoutMs: 180_000 });
        seen.slot = values(rings.open(slot));
        rings.close();

        // Without a descriptor to spare.
        const before = opened();
        const taken = [];
        try {
          for (;;) taken.push(openSync("/dev/null", "r"));
        } catch {}
        const short = await failureOf(() => client.open(references[1]));
        for (const fd of taken.splice(0)) closeSync(fd);
        seen.short = [short.code, /^Cannot (take a region's descriptor|connect to)/.test(short.detail), opened() - before];
        seen.after = values(client.open(references[1]));
        seen.forged = await codeOf(() => client.open({ ...references[1].toJSON(), ino: "1" }));
        seen.foreign = await codeOf(() => client.open({ ...references[1].toJSON(), instance: "another" }));
        tell(seen);
        client.close();
      `,
      );
      const refusal = {
        code: "access-denied",
        detail: expect.stringMatching(
          /EACCES for \/dev\/shm\/tensord\..* uid 65534 in .*may not connect to .*a\.sock\.broker .*EACCES/,
        ),
        hint: expect.stringContaining("run this process in the server's group"),
      };
      expect(await program.hear()).toEqual(refusal);
      expect(await program.hear()).toEqual({
        ...refusal,
        detail: expect.stringMatching(/which has no name here: .*uid 65534, gid 65534.* may not connect to/),
      });
      chmodSync(brokerSocket, 0o666);
      await program.say("go on");
      const ofKind = (storage: string) => ({
        region: ["descriptor", null, true, "sealed", [1, 2]],
        refused: "region-has-writers",
        reference: [storage, null, [1, 2], [1, 2]],
        attached: "descriptor",
        writable: "region-sealed",
      });
      expect(await program.hear<object>()).toEqual({
        named: "descriptor",
        made: { private: ofKind("shm"), memfd: ofKind("memfd") },
        slot: [3, 4],
        short: ["out-of-descriptors", true, 0],
        after: [1, 2],
        forged: "stale-ref",
        foreign: "wrong-namespace",
      });
      await program.end();
    },
  );

  testWith(needsNodeClient, needsNamespaces)(
    `${runtime}: where neither name nor broker is reached, the error says which socket to mount`,
    async () => {
      const region = await server.api.create({ name: `lost-${runtime}`, byte_size: 8, ttl_ms: 3_600_000 });
      await using program = start(
        runtime,
        elsewhere,
        { ...known, TENSORD_BROKER_SOCKET: "/nowhere/broker.sock" },
        `
        const client = await connect();
        tell(await failureOf(() => client.attach("lost-${runtime}")));
        const { dev, ino, path } = (await client.get("lost-${runtime}")).storage;
        const reference = {
          v: 1, storage: "shm", instance: path.split(".")[1], region: "${region.id}", path, device_uuid: null, dev, ino,
          byte_offset: 4096, byte_size: 8, dtype: "U8", shape: [8], generation: 0,
        };
        tell(await failureOf(() => client.open(reference)));
        client.close();
      `,
      );
      const said = {
        detail: expect.stringMatching(/\/dev\/shm here is device .*broker's socket \/nowhere\/broker\.sock .*ENOENT/),
        hint: expect.stringMatching(/mount the directory of the server's socket .*TENSORD_BROKER_SOCKET/),
      };
      expect(await program.hear()).toEqual({ code: "wrong-namespace", ...said });
      expect(await program.hear()).toEqual({ code: "stale-ref", ...said });
      await program.end();
    },
  );
}
