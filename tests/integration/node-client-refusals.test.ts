/** What the Node client refuses, and in which words: missing servers and regions, other mounts, other users. */

import { afterAll, expect } from "bun:test";
import { needsReadableCheckout, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  NodeProgram,
  needsNodeClient,
  prelude,
  type Runtime,
  runProgram,
  runtimes,
  startProgram,
} from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { startServer } from "../harness/server.ts";

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: each failure has its code, and says what to do`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `
        const client = await connect();
        const make = (data, options = { ttlMs: 600_000 }, name = "w") => client.create(name, data, options);
        const region = await make({ a: new Uint8Array(4), b: new Float32Array(1) });
        const error = await (await connect({ session: false })).create("ownerless", new Uint8Array(1)).catch((error) => error);
        tell({
          isOurs: [isTensordError(error), isTensordError(error, "owner-required"), isTensordError(error, "closed"), isTensordError(new Error())],
          error: { name: error.name, code: error.code, status: error.status, hint: error.hint },
          message: error.message === error.detail + "\\nhint: " + error.hint,
          taken: await codeOf(() => make(new Uint8Array(1))),
          full: await make({ dtype: "U8", shape: [2 ** 52] }, undefined, "huge").catch(({ code, fields }) => [code, typeof fields.requestedBytes]),
          missing: await codeOf(() => client.attach("nothing")),
          late: await codeOf(() => client.attach("nothing", { timeoutMs: 60 })),
          unsealed: await codeOf(() => client.attach("w", { timeoutMs: 60 })),
          path: await codeOf(() => client.attach("../../livez")),
          model: await codeOf(() => client.get("w", { model: "org/name" })),
          id: await codeOf(() => client.getById("../models")),
          tensor: await codeOf(() => region.tensor("c")),
          only: await codeOf(() => region.tensor()),
          dtype: await codeOf(() => region.tensor("b").array("F64")),
          outside: [await codeOf(() => region.tensor("a").window(-1, 1)), await codeOf(() => region.tensor("a").window(4, 1)), await codeOf(() => region.tensor("a").window(0, 0.5))],
          data: [
            await codeOf(() => make({ x: [1, 2] })),
            await codeOf(() => make({ x: new DataView(new ArrayBuffer(4)) })),
            await codeOf(() => make({ dtype: "F32", shape: [2], data: new Float32Array(3) })),
            await codeOf(() => make({ dtype: "F32", shape: [1], data: new Int32Array(1) })),
            await codeOf(() => make({ dtype: "F33", shape: [1] })),
            await codeOf(() => make({ dtype: "F32", shape: [-1] })),
          ],
          open: await codeOf(() => client.open({ path: "/etc/passwd", byteOffset: 0, byteSize: 1 })),
          closed: await (client.close(), codeOf(() => client.stats())),
          mapped: region.tensor("a").array().length,
          // One is found without a look at all names, of which there may be 100,000.
          found: (region.tensors.keys = () => { throw new Error("all names"); }, region.tensor("a").name),
        });
      `,
    );
    expect(seen).toEqual({
      isOurs: [true, true, false, false],
      error: { name: "TensordError", code: "owner-required", status: 422, hint: expect.stringContaining("{ ttlMs }") },
      message: true,
      taken: "name-taken",
      full: ["pool-full", "number"],
      missing: "region-not-found",
      late: "region-not-found",
      unsealed: "region-not-sealed",
      path: "validation-failed",
      model: "validation-failed",
      id: "validation-failed",
      tensor: "tensor-not-found",
      only: "tensor-not-found",
      dtype: "validation-failed",
      outside: Array(3).fill("validation-failed"),
      data: Array(6).fill("validation-failed"),
      open: "validation-failed",
      closed: "closed",
      mapped: 4,
      found: "a",
    });
  });

  claim(`${runtime}: without a server it says where it looked, and waits only when told`, async () => {
    await using server = await lendServer();
    await server.stop();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const error = await client.stats().catch((error) => error);
        tell({
          code: error.code, fields: error.fields, detail: error.detail,
          wait: await codeOf(() => connect({ waitMs: 100 })),
          events: await codeOf(async () => { for await (const _ of client.events()); }),
          tcp: await connect({ url: "http://127.0.0.1:1" }).then((client) => codeOf(() => client.stats())),
        });
      `,
    );
    expect(seen).toEqual({
      code: "server-unavailable",
      fields: { requestSent: false },
      detail: expect.stringContaining(`nobody listens on unix://${server.instance.socket} (ENOENT)`),
      wait: "server-unavailable",
      events: "server-unavailable",
      tcp: "server-unavailable",
    });
  });

  claim(
    `${runtime}: a waiting reader gets the region when it is sealed, a waiting writer when it is there`,
    async () => {
      await using server = await lendServer();
      await using program = startProgram(
        runtime,
        server.env,
        `
        const client = await connect();
        const reading = client.attach("awaited", { timeoutMs: 180_000 });
        const writing = client.attach("awaited", { timeoutMs: 180_000, writable: true });
        await client.stats();
        tell("waiting");
        const writer = await writing;
        writer.close();
        tell(writer.state);
        const { state } = await reading;
        tell(state);
      `,
      );
      expect(await program.hear()).toBe("waiting");
      const region = await server.api.create({ name: "awaited", byte_size: 10, ttl_ms: 60_000 });
      expect(await program.hear()).toBe("open");
      await server.api.seal(region.id);
      expect(await program.hear()).toBe("sealed");
    },
  );

  claim(`${runtime}: another device than the server's is another namespace, also for a reference`, async () => {
    await using server = await lendServer();
    const region = await server.api.create({ name: "there", byte_size: 10, ttl_ms: 60_000 });
    const dev = String(region.storage.dev);
    const other = dev.replace(/./g, "8");
    const rewrite = (text: string) => text.replaceAll(`"dev":"${dev}"`, `"dev":"${other}"`);
    await using proxy = await new SocketProxy(server.instance.socket, { rewrite }).listening();
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `
        const client = await connect({ url: "${proxy.url}" });
        const error = await client.attach("there").catch((error) => error);
        const said = await codeOf(() => client.create("new", new Uint8Array(10), { ttlMs: 60_000, storage: "shm" }));
        const left = await codeOf(() => client.get("new"));
        // Who does not say what it is made of gets what needs no shared memory.
        process.on("warning", () => {});
        const { attachedBy } = await client.create("new", new Uint8Array(10), { ttlMs: 60_000 });
        tell({ code: error.code, fields: error.fields, hint: error.hint, said, left, attachedBy });
      `,
    );
    expect(seen).toEqual({
      code: "wrong-namespace",
      fields: { devHere: dev, devServer: other },
      hint: "mount the same volume in both containers",
      said: "wrong-namespace",
      left: "region-not-found",
      attachedBy: "copy",
    });
  });

  claim(`${runtime}: where no region can be mapped, the first call says which platform it is`, async () => {
    await using server = await startServer({ env: { TENSORD_PORT: "0" } });
    const url = await server.readUrl();
    const seen = await runProgram(
      runtime,
      { ...server.env, TENSORD_URL: "" },
      `
        Object.defineProperty(process, "platform", { value: "darwin" });
        const say = (action) => Promise.resolve().then(action).then(() => "no error", ({ code, detail }) => code + ": " + detail);
        const client = await connect({ url: "${url}" });
        const reference = { v: 1 };
        tell({
          first: await say(() => connect()),
          create: await say(() => client.create("w", new Uint8Array(1))),
          others: new Set(await Promise.all([
            () => client.getOrCreate("w", () => new Uint8Array(1)), () => client.attach("w"), () => client.ring(), () => client.rings(),
            () => client.open(reference), () => client.openWhenFree(reference),
          ].map(codeOf))).size,
          books: await codeOf(() => client.stats()),
          left: await codeOf(() => client.get("w")),
        });
      `,
    );
    expect(seen).toEqual({
      first: expect.stringMatching(
        /^feature-unavailable: Cannot find a server in shared memory: this is darwin on \w+, want Linux/,
      ),
      create: expect.stringMatching(/^feature-unavailable: Cannot create a region: this is darwin on/),
      others: 1,
      books: "no error",
      left: "region-not-found",
    });
  });

  testWith(needsNodeClient, needsReadableCheckout())(`${runtime}: another user is told which user it is`, async () => {
    await using server = await lendServer();
    const user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const source = `tell(await (await connect()).stats().catch(({ code, detail }) => [code, detail]));`;
    await using program = new NodeProgram([...user, ...runtimes[runtime], prelude + source], server.env);
    expect(await program.hear()).toEqual(["access-denied", expect.stringContaining("for uid 65534, gid 65534")]);
  });
}
