/** The Node client and a server that is away for a moment: killed and started again, or gone before it was heard. */

import { afterAll, expect } from "bun:test";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runtimes, startProgram } from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: a killed server takes nothing from who maps, and calls wait for the next one`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect(patient);
        const region = await client.create("survivor", new Uint8Array(4096).fill(7), { ttlMs: 600_000 });
        const array = region.tensor().array("U8");
        const { epoch } = await client.stats();
        tell("mapped");
        await receive();
        const calls = Promise.all([client.get("survivor"), client.stats(), client.create("survivor", new Uint8Array(4096), { ttlMs: 600_000, ifExists: "attach" })]);
        array[0] = 1;
        const opened = client.open(region.tensor().ref());
        tell(Array.from(opened.array("U8").subarray(0, 2)));
        const [found, stats, again] = await calls;
        const sealed = await region.seal().catch((error) => error.code);
        again.close();
        tell({ same: found.id === region.id, isNext: stats.epoch > epoch, created: again.isCreated, sealed, array: array[1] });
      `,
    );
    expect(await program.hear()).toBe("mapped");
    await server.kill("SIGKILL");
    await program.say("go on");
    expect(await program.hear()).toEqual([1, 7]);
    await server.start();
    expect(await program.hear()).toEqual({
      same: true,
      isNext: true,
      created: false,
      sealed: "region-has-writers",
      array: 7,
    });
    await program.end();
    await until("nobody maps it", async () => (await server.api.findByName("survivor"))?.in_use === false);
  });

  claim(`${runtime}: what a lost answer did is found out before it is asked again`, async () => {
    await using server = await lendServer();
    await using proxy = await new SocketProxy(server.instance.socket).listening();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect({ url: "${proxy.url}", session: false });
        const other = await client.create(null, new Uint8Array(4), { ttlMs: 600_000 });
        other.close();
        tell("ready");
        await receive();
        tell((await client.stats()).instance);
        await receive();
        const error = await client.create("once", new Uint8Array(4), { ttlMs: 600_000 }).catch((error) => error);
        tell([error.code, error.fields, error.hint]);
        await receive();
        const region = await client.create("again", new Uint8Array([1, 2]), { ttlMs: 600_000, ifExists: "attach" });
        tell([region.isCreated, ...region.tensor().array()]);
        await receive();
        tell((await region.seal()).state);
        await receive();
        tell(await client.delete(other));
      `,
    );
    expect(await program.hear()).toBe("ready");
    const answers: unknown[] = [];
    for (let step = 0; step < 5; step++) {
      proxy.loseAnswers(1);
      await program.say("go on");
      answers.push(await program.hear());
    }
    expect(answers).toEqual([
      server.instance.name,
      ["server-unavailable", { requestSent: true }, expect.stringContaining("whether it had its effect is not known")],
      [true, 1, 2],
      "sealed",
      { state: "deleted", freedBytes: 0 },
    ]);
    expect(await server.api.findByName("once")).toBeDefined();
  });
}
