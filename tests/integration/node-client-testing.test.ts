/** `@tensord/client/testing`: a private server for the tests of others. */

import { afterAll, expect } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft, defaultShmDirectory } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

/** From wherever it is run. */
const executable = JSON.stringify(tensord.map((word) => (word.startsWith("src/") ? join(root, word) : word)));
const prelude = `
  const { privateServer } = await import("@tensord/client/testing");
  const executable = ${executable};
`;
const directoryOf = (instance: unknown) => join(defaultShmDirectory, `tensord.${instance}`);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: private servers know nothing of each other, are emptied, and leave nothing`, async () => {
    const said = await runProgram(
      runtime,
      { TENSORD_MEMORY_LIMIT_BYTES: "nonsense of somebody else's" },
      `${prelude}
      const { existsSync } = await import("node:fs");
      const one = await privateServer({ executable });
      const other = await privateServer({ executable, settings: { TENSORD_LOG_LEVEL: "debug" } });
      const client = await one.connect();
      await client.registerModel("llama");
      (await client.create("weights", new Float32Array([1, 2]), { model: "llama", persist: true })).close();
      const beside = await other.connect({ session: false });
      const names = async (of) => { const all = []; for await (const { name } of of.list()) all.push(name); return all; };
      Object.assign(process.env, one.env);
      const found = await connect({ session: false });
      const before = [await names(client), await names(beside), await names(found)];
      await one.clear();
      const after = [await names(client), (await client.models().next()).value.name, one.log().includes('"ready on')];
      for (const each of [client, beside, found]) await each.close();
      for (const server of [one, other]) await server.close();
      tell({ before, after, left: [one, other].map(({ instance }) => existsSync("/dev/shm/tensord." + instance)) });
    `,
    );
    expect(said).toEqual({
      before: [["weights"], [], ["weights"]],
      after: [[], "default", true],
      left: [false, false],
    });
  });

  test(`${runtime}: a private server ends with the process that is killed, or forgets it`, async () => {
    const program = `${prelude}
      const server = await privateServer({ executable });
      const client = await server.connect();
      await client.create("weights", new Float32Array([1, 2]), { persist: true });
      tell(server.instance);
    `;
    const killed = startProgram(runtime, {}, `${program} await receive();`);
    const instance = await killed.hear();
    expect(existsSync(directoryOf(instance))).toBeTrue();
    await killed.kill();
    await until("nothing of the killed one's is left", () => !existsSync(directoryOf(instance)));
    const forgetful = await runProgram(runtime, {}, `${program} await client.close();`);
    await until("nothing of the forgetful one's is left", () => !existsSync(directoryOf(forgetful)));
  });

  test(`${runtime}: what cannot be started is told with what to do`, async () => {
    const failures = await runProgram(
      runtime,
      { PATH: "/nonexistent" },
      `${prelude}
      const failure = (options) => privateServer(options).then(() => "started", ({ code, message }) => [code, message]);
      tell([
        await failure(),
        await failure({ executable: "/nonexistent/tensord" }),
        await failure({ executable, settings: { TENSORD_PORT: "nonsense" } }),
        await failure({ execut: "tensord" }),
      ]);
    `,
    );
    expect(failures).toEqual([
      ["feature-unavailable", expect.stringMatching(/Cannot find the server.*\nhint: Install/)],
      ["feature-unavailable", expect.stringMatching(/Cannot start \/nonexistent\/tensord: .*ENOENT/)],
      ["server-unavailable", expect.stringMatching(/ended with 1, and wrote:\n(.*\n)*.*TENSORD_PORT/)],
      ["validation-failed", expect.stringContaining("is executable meant?")],
    ]);
  });
}

testWith(needsNodeClient)("CommonJS has it, with the one client that a program has", async () => {
  const said = await runProgram(
    "node",
    {},
    `const require = (await import("node:module")).createRequire(process.cwd() + "/package.json");
    const { privateServer } = require("@tensord/client/testing");
    const commonJs = require("@tensord/client");
    const server = await privateServer({ executable: ${executable} });
    const client = await server.connect();
    const failure = await client.attach("nothing").catch((error) => error);
    await client.close();
    await server.close();
    tell([failure instanceof commonJs.TensordError, failure.code]);`,
  );
  expect(said).toEqual([true, "region-not-found"]);
});
