/** What is sealed and the Node client has attached before is found by the kernel alone, as long as it stands and its name means it. */

import { afterAll, expect } from "bun:test";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

const tools = `
  import { unlinkSync } from "node:fs";
  // The modules by themselves, so that requests can be counted where they are made.
  const { connect: connectHere } = await import("./dist/connect.js");
  const { Transport } = await import("./dist/http/transport.js");
  const { request } = Transport.prototype;
  let count = 0;
  Transport.prototype.request = function (method, path, ...rest) {
    if (method === "GET" && path.includes("/v1/models/")) count += 1;
    return request.call(this, method, path, ...rest);
  };
  const client = await connectHere();
  const asked = async (action) => {
    const before = count;
    const result = await action();
    return [count - before, result];
  };
  const make = async (value, { version = "1", name = "kept", isOpen = false, ...options } = {}) => {
    const region = await client.create(name, new Float32Array([value]), { version, ttlMs: 600_000, ...options });
    if (!isOpen) await region.seal();
    region.close();
    return region;
  };
  const first = async ({ name = "kept", from = client, ...options } = {}) => {
    const region = await from.attach(name, options);
    const [value] = region.tensor().array("F32");
    region.close();
    return value;
  };
  const twice = async (options) => [await first(options), await first(options)];
`;

const test = testWith(needsNodeClient);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  test(`${runtime}: a version and a name alone are asked for once; what is open, a hand-off, memfd, and without a session each time`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${tools}
        await make(7);
        await client.registerModel("elsewhere");
        await make(8, { version: "2" });
        await make(9, { model: "elsewhere" });
        const seen = {
          version: await asked(() => twice({ version: "1" })),
          again: await asked(() => twice({ version: "1" })),
          other: await asked(() => twice({ version: "2" })),
          elsewhere: await asked(() => twice({ version: "1", model: "elsewhere" })),
          name: await asked(() => twice()),
          group: (await asked(async () => (await client.attach(["kept"], { version: "1" })).close()))[0],
        };
        const newest = await make(10, { version: "3" });
        seen.newer = await asked(() => twice());
        await client.change(newest.id, { labels: { step: "2" } });
        seen.changed = await asked(() => twice());
        await make(1, { name: "open", isOpen: true });
        seen.open = await asked(() => twice({ name: "open", version: "1" }));
        await make(2, { name: "memfd", storage: "memfd" });
        seen.memfd = await asked(() => twice({ name: "memfd", version: "1" }));
        const handed = await client.create("handed", new Float32Array([3]), { version: "1", lingerMs: 0 });
        await handed.seal();
        const kept = await client.attach("handed", { version: "1" });
        seen.handed = await asked(() => first({ name: "handed", version: "1" }));
        kept.close();
        const alone = await connectHere({ session: false });
        seen.alone = await asked(() => twice({ from: alone, version: "1" }));
        const aborted = AbortSignal.abort(new Error("no longer"));
        seen.aborted = await codeOf(() => client.attach("kept", { version: "1", signal: aborted }));
        client.close();
        seen.closed = await codeOf(() => client.attach("kept", { version: "1" }));
        tell(seen);
        alone.close();
      `,
    );
    expect(seen).toEqual({
      version: [1, [7, 7]],
      again: [0, [7, 7]],
      other: [1, [8, 8]],
      elsewhere: [1, [9, 9]],
      name: [1, [8, 8]],
      newer: [1, [10, 10]],
      changed: [2, [10, 10]],
      group: 0,
      open: [2, [1, 1]],
      memfd: [2, [2, 2]],
      handed: [1, 3],
      alone: [2, [7, 7]],
      aborted: "Error: no longer",
      closed: "closed",
    });
  });
}

test("a version that was replaced is the new one once its seal was answered; a deleted one is gone, also while it is mapped", async () => {
  await using server = await lendServer();
  server.log.expect(/^tensord\.region\.relinked$/);
  const seen = await runProgram(
    "node",
    server.env,
    `${tools}
      const values = [];
      for (let value = 0; value < 5; value++) {
        await make(value, { ifExists: "replace" });
        values.push(...(await twice({ version: "1" })));
      }
      // A stock reader that ends takes the name away: the server brings it back.
      const { path } = (await client.get("kept", { version: "1" })).storage;
      unlinkSync(path);
      const linked = await twice({ version: "1" });
      const mapped = await client.attach("kept", { version: "1" });
      await client.delete(mapped);
      const gone = await codeOf(() => client.attach("kept", { version: "1" }));
      await make(1, { version: "2" });
      await first({ version: "2" });
      await client.delete(await client.get("kept", { version: "2" }));
      tell({ values, linked, gone, after: await codeOf(() => client.attach("kept", { version: "2" })) });
      client.close();
    `,
  );
  // It is read before the next test has this server.
  await until("the server tells of the name", () => server.log.find(/^tensord\.region\.relinked$/));
  const values = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4];
  expect(seen).toEqual({ values, linked: [4, 4], gone: "region-not-found", after: "region-not-found" });
});

test("each attach is told to the server; and while that is away what was attached is found", async () => {
  await using server = await lendServer();
  await using program = startProgram(
    "node",
    server.env,
    `${tools}
      const until = async (isSo) => {
        while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 20));
      };
      await make(9);
      await first({ version: "1" });
      const holders = async () => (await client.get("kept", { version: "1" })).holders.length;
      await until(async () => (await holders()) === 0);
      const [requests, region] = await asked(() => client.attach("kept", { version: "1" }));
      await until(async () => (await holders()) === 1);
      region.close();
      tell(requests);
      await receive();
      tell(await first({ version: "1" }));
      await receive();
      tell(await first({ version: "1" }));
      client.close();
    `,
  );
  expect(await program.hear<number>()).toBe(0);
  await server.kill("SIGKILL");
  await program.say("it is away");
  expect(await program.hear<number>()).toBe(9);
  await server.start();
  await program.say("it is back");
  expect(await program.hear<number>()).toBe(9);
  await program.end();
});
