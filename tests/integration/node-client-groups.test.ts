/** Groups as the Node client seals and attaches them, and rebuilds of what is there; and Python's beside them. */

import { afterAll, expect } from "bun:test";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, runProgram, runPython, startProgram, usualRuntimes } from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";

afterAll(endLentServers);

const head = `
  const client = await connect();
  const names = ["shard-0", "shard-1"];
  const make = (value, options = {}) =>
    Promise.all(names.map((name) => client.create(name, new Float32Array(1000).fill(value), { ttlMs: 60_000, ...options })));
  const publish = async (value, options) => {
    const regions = await make(value, options);
    await client.seal(regions);
    for (const region of regions) region.close();
  };
  const valueOf = (region) => region.tensor().array("F32")[0];
  const refusal = async (action) => {
    try {
      await action();
    } catch (error) {
      return [error.code, error.detail];
    }
    return "no error";
  };
`;

for (const runtime of usualRuntimes) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: a group is sealed at once, all of it or none, and its regions are as after a seal of each`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${head}
        const [first, second] = await make(1);
        const array = first.tensor().array("F32");
        const writer = await client.attach("shard-1", { writable: true });
        const busy = await refusal(() => client.seal([first, second]));
        const still = [first.isWritable, second.isWritable, (await first.refresh()).state, (await second.refresh()).state];
        writer.close();
        await collect();
        array[0] = 7;
        const revisions = [second, first].map(({ descriptor }) => descriptor.revision);
        const stale = await codeOf(() => client.seal([second, first], { ifMatch: [revisions[0], 9] }));
        const sealed = await client.seal([second, first], { checksum: true, ifMatch: revisions });
        const verified = (await client.verify(first)).ok;
        const [a, b] = await make(2, { ifExists: "replace" });
        const twice = await refusal(() => client.seal([a, b, a.id]));
        const counted = await refusal(() => client.seal([a, b], { ifMatch: [1] }));
        const one = await refusal(() => client.seal(a));
        for (const region of [a, b]) region.close();
        await collect();
        const others = await client.seal([a.id, b.descriptor]);
        tell({
          busy: [busy[0], busy[1].includes(second.id)],
          still,
          stale,
          sealed: sealed.map(({ id, tensors }) => [id === second.id, tensors.length]),
          shown: [first, second].map(({ state, isWritable, descriptor }) => [state, isWritable, descriptor.checksum.algorithm]),
          verified,
          value: array[0],
          twice, counted, one,
          others: others.map(({ id, state, tensors }) => [[a.id, b.id].indexOf(id), state, tensors ?? null]),
        });
      `,
    );
    expect(seen).toEqual({
      busy: ["region-has-writers", true],
      still: [true, true, "open", "open"],
      stale: "revision-mismatch",
      sealed: [
        [true, 1],
        [false, 1],
      ],
      shown: Array(2).fill(["sealed", false, "xxh3-64-tree"]),
      verified: true,
      value: 7,
      twice: ["validation-failed", expect.stringContaining("is there twice, want each once")],
      counted: ["validation-failed", expect.stringContaining("want one for each of 2 regions")],
      one: ["validation-failed", expect.stringContaining("want a list, each a region")],
      others: [
        [0, "sealed", null],
        [1, "sealed", null],
      ],
    });
  });

  test(`${runtime}: whoever attaches all of it meets one version, and waits for all of it`, async () => {
    await using server = await lendServer();
    await using reader = startProgram(
      runtime,
      server.env,
      `${head}
        const group = await client.attach(names, { timeoutMs: 60_000 });
        const { regions } = group;
        const early = await refusal(() => client.attach([...names, "shard-9"]));
        const one = await codeOf(() => client.attach([]));
        tell({ values: [...group].map(valueOf), names: regions.map(({ name }) => name), early, one });
        group.close();
        let over = false;
        receive().then(() => (over = true));
        const met = [];
        do {
          const [a, b] = (await client.attach(names)).regions;
          met.push([valueOf(a), valueOf(b)]);
          for (const region of [a, b]) region.close();
        } while (!over);
        tell({ mixed: met.filter(([a, b]) => a !== b), isClosed: regions.every(({ isClosed }) => isClosed) });
      `,
    );
    await using writer = startProgram(
      runtime,
      server.env,
      `${head}
        await publish(0);
        await receive();
        for (let version = 1; version < 30; version++) await publish(version, { ifExists: "replace" });
        tell("published");
      `,
    );
    expect(await reader.hear<unknown>()).toEqual({
      values: [0, 0],
      names: ["shard-0", "shard-1"],
      early: ["region-not-found", expect.stringContaining('"shard-9"')],
      one: "validation-failed",
    });
    await writer.say("go");
    await writer.hear();
    await reader.say("over");
    expect(await reader.hear<unknown>()).toEqual({ mixed: [], isClosed: true });
  });

  test(`${runtime}: where one member is not what it was said to be, all are let go and asked for again`, async () => {
    await using server = await lendServer();
    let spoilt = 0;
    // The second member's inode is another one the first time that a group is opened, as if it had been replaced.
    const rewrite = (text: string) => {
      const second = text.lastIndexOf('"ino":"');
      if (!text.includes('{"items":[{"id"') || !text.includes('"tensors":') || spoilt > 0) return text;
      spoilt += 1;
      const [head = "", tail = ""] = [text.slice(0, second + 7), text.slice(second + 7)];
      return head + tail.replace(/^\d+/, (ino) => "9".repeat(ino.length));
    };
    await using proxy = await new SocketProxy(server.instance.socket, { rewrite }).listening();
    await using program = startProgram(
      runtime,
      { ...server.env, TENSORD_URL: proxy.url },
      `${head}
        const shards = await make(4);
        tell(shards.map(({ id }) => id));
        await receive();
        // The answer is lost: all of them are sealed, so the lost request has done it.
        const sealed = await client.seal(shards);
        for (const shard of shards) shard.close();
        await collect();
        const group = await client.attach(names);
        tell({ sealed: sealed.map(({ state }) => state), ids: [...group].map(({ id }) => id), values: [...group].map(valueOf) });
      `,
    );
    const ids = await program.hear<string[]>();
    proxy.loseAnswers(1);
    await program.say("seal");
    expect(await program.hear<unknown>()).toEqual({ sealed: ["sealed", "sealed"], ids, values: [4, 4] });
    expect(spoilt).toBe(1);
  });

  test(`${runtime}: what was found says how old it is, and is built anew while it stands`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${head}
        const never = () => { throw new Error("it is built already"); };
        const old = await client.getOrCreate("weights", () => new Float32Array([1]));
        for (const begun = Date.now(); Date.now() < begun + 20; ) await new Promise((resolve) => setImmediate(resolve));
        const found = await client.getOrCreate("weights", never);
        const ages = [found.isCreated, found.createdAt === old.createdAt, found.ageMs >= 19];
        const failure = await client.getOrCreate("weights", never, { rebuild: true }).catch((error) => error.message);
        const stands = (await client.getOrCreate("weights", never)).id === old.id;
        let begun, goOn;
        const beginning = new Promise((resolve) => (begun = resolve));
        const going = new Promise((resolve) => (goOn = resolve));
        const rebuild = () =>
          client.getOrCreate("weights", async () => {
            begun();
            await going;
            return new Float32Array([2]);
          }, { rebuild: true });
        const both = Promise.all([rebuild(), rebuild()]);
        await beginning;
        const meanwhile = await client.getOrCreate("weights", never);
        const late = await codeOf(() => client.getOrCreate("weights", never, { rebuild: true, timeoutMs: 20 }));
        goOn();
        const rebuilt = await both;
        const versioned = await client.getOrCreate("weights", () => new Float32Array([3]), { rebuild: true, version: "2" });
        tell({
          ages, failure, stands, late,
          meanwhile: meanwhile.id === old.id,
          rebuilt: rebuilt.map((region) => [region.isCreated, valueOf(region)]).sort(),
          same: rebuilt[0].id === rebuilt[1].id,
          old: valueOf(old),
          versioned: [versioned.isCreated, versioned.version],
          claims: (await client.stats()).claims,
        });
      `,
    );
    expect(seen).toEqual({
      ages: [false, true, true],
      failure: "it is built already",
      stands: true,
      late: "deadline-exceeded",
      meanwhile: true,
      rebuilt: [
        [false, 2],
        [true, 2],
      ],
      same: true,
      old: 1,
      versioned: [true, "2"],
      claims: 0,
    });
  });

  testWith(needsNodeClient, needsStockPython)(`${runtime}: a group of Python's is a group here`, async () => {
    await using server = await lendServer();
    const python = `
      client = tensord.connect()
      regions = [client.create(f"shard-{n}", np.array([n], np.float32), ttl=60) for n in range(2)]
      client.seal(regions)
      tell(len(regions))
    `;
    await runPython(server.env, python);
    const node = `${head} tell([...(await client.attach(names))].map(valueOf));`;
    expect(await runProgram<unknown>(runtime, server.env, node)).toEqual([0, 1]);
  });
}
