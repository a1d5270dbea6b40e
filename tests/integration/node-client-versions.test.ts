/** Versions of a name, as the Node client makes, finds, waits for and builds them; and Python's beside them. */

import { afterAll, expect } from "bun:test";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, runProgram, runPython, usualRuntimes } from "../harness/node-program.ts";

afterAll(endLentServers);

const make = `
  const client = await connect();
  const make = async (version, value, { isOpen = false, ...options } = {}) => {
    const region = await client.create("weights", new Float32Array([value]), { version, ttlMs: 60_000, ...options });
    if (!isOpen) await region.seal();
    region.close();
    return region;
  };
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

  test(`${runtime}: each version is found by it, and listed by the name`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${make}
        const made = [await make(undefined, 0), await make("1", 1), await make("2.0_b-c", 2)];
        const found = [];
        for (const version of ["", "1", "2.0_b-c"]) {
          const region = await client.attach("weights", { version });
          const { id } = await client.get("weights", { version });
          found.push([made.findIndex((each) => each.id === id), region.id === id, region.version, region.tensor().array("F32")[0]]);
        }
        const list = async (options) => {
          const versions = [];
          for await (const { version } of client.list({ name: "weights", ...options })) versions.push(version);
          return versions;
        };
        const items = [];
        for await (const item of client.list({ name: "weights" })) {
          const region = await client.attach(item);
          items.push([region.id === item.id, region.version === item.version, region.tensor().array("F32")[0]]);
        }
        const unnamed = await client.create(null, new Uint8Array(1), { ttlMs: 60_000 });
        tell({
          made: made.map(({ version, descriptor }) => [version, descriptor.version]),
          found,
          absent: [await refusal(() => client.get("weights", { version: "3" })), await codeOf(() => client.attach("weights", { version: "3", timeoutMs: 20 }))],
          lists: [await list({}), await list({ version: "1" }), await list({ version: "" }), await list({ version: "3" })],
          items,
          unnamed: unnamed.version,
        });
      `,
    );
    expect(seen).toEqual({
      made: ["", "1", "2.0_b-c"].map((version) => [version, version]),
      found: [
        [0, true, "", 0],
        [1, true, "1", 1],
        [2, true, "2.0_b-c", 2],
      ],
      absent: [["region-not-found", expect.stringContaining('version "3" of the name')], "region-not-found"],
      lists: [["", "1", "2.0_b-c"], ["1"], [""], []],
      items: [0, 1, 2].map((value) => [true, true, value]),
      unnamed: "",
    });
  });

  test(`${runtime}: the name alone means the newest that is sealed, or, where none is, the newest`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${make}
        const newest = [];
        const look = async () => newest.push((await client.get("weights")).version);
        await make("1", 1, { isOpen: true });
        await look();
        await make("2", 2, { isOpen: true });
        await look();
        const waiting = client.attach("weights", { timeoutMs: 60_000 });
        const exact = client.attach("weights", { version: "4", timeoutMs: 60_000 });
        await make("3", 3);
        newest.push((await waiting).version);
        await make("4", 4);
        newest.push((await exact).version);
        await make("5", 5, { isOpen: true });
        await look();
        tell(newest);
      `,
    );
    expect(seen).toEqual(["1", "2", "3", "4", "4"]);
  });

  test(`${runtime}: a version is a name of its own, and messages say which`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `${make}
        const first = await make("1", 1);
        await make("2", 2, { isOpen: true });
        const taken = await refusal(() => make("1", 3));
        const attached = await client.create("weights", new Float32Array(1), { version: "1", ttlMs: 60_000, ifExists: "attach" });
        const replacing = await make("1", 3, { ifExists: "replace" });
        tell({
          taken,
          attached: [attached.isCreated, attached.id === first.id],
          replaced: (await client.get("weights", { version: "1" })).id === replacing.id,
          sealed: await refusal(() => client.attach("weights", { version: "1", writable: true })),
          open: await refusal(() => client.attach("weights", { version: "2", timeoutMs: 20 })),
          tensor: await refusal(() => attached.tensor("x")),
          builds: await refusal(() => client.getOrCreate("weights", () => new Uint8Array(1), { version: "2", timeoutMs: 20 })),
          none: await Promise.all(["a/b", "é&x=1", "x".repeat(129)].map((version) => codeOf(() => client.get("weights", { version })))),
          unnamed: await refusal(() => client.create(null, new Uint8Array(1), { version: "1", ttlMs: 60_000 })),
        });
      `,
    );
    const says = (code: string, text: string) => [code, expect.stringContaining(text)];
    expect(seen).toEqual({
      taken: says("name-taken", "(default/weights, version 1)"),
      attached: [false, true],
      replaced: true,
      sealed: says("region-sealed", "(default/weights, version 1)"),
      open: says("region-not-sealed", "(default/weights, version 2)"),
      tensor: says("tensor-not-found", "(default/weights, version 1)"),
      builds: says("deadline-exceeded", "Cannot get default/weights, version 2: another"),
      none: Array(3).fill("validation-failed"),
      unnamed: says("validation-failed", "the region has no name"),
    });
  });

  test(`${runtime}: each version is built once, and a failed build of one leaves no claim behind`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${make}
        const never = () => { throw new Error("it is built already"); };
        const builds = [];
        const build = async (options, build = () => new Uint8Array(1)) => {
          const region = await client.getOrCreate("weights", build, { ttlMs: 60_000, ...options });
          builds.push([region.isCreated, region.version]);
        };
        await build({ version: "1" });
        await build({ version: "2" });
        await build({ version: "1" }, never);
        await build({}, never);
        await build({ version: "" });
        const failed = [];
        for (const [name, version] of [["plain", undefined], ["empty", ""], ["second", "2"]]) {
          const error = await client.getOrCreate(name, async () => {
            // By the name alone, from here on, the server tells everybody of this one.
            const region = await client.create(name, new Uint8Array(1), { version: "1", ttlMs: 60_000 });
            await region.seal();
            throw new Error("no weights");
          }, { version }).catch((error) => error);
          const built = await client.getOrCreate(name, () => new Uint8Array(1), { version: version ?? "" });
          failed.push([error.message, built.isCreated, built.version]);
        }
        const ring = await client.ring({ name: "ring", version: "7", slots: 1, slotBytes: 8 });
        tell({ builds, failed, claims: (await client.stats()).claims, ring: (await client.getById(ring.id)).version });
      `,
    );
    expect(seen).toEqual({
      builds: [
        [true, "1"],
        [true, "2"],
        [false, "1"],
        [false, "2"],
        [true, ""],
      ],
      failed: ["", "", "2"].map((version) => ["no weights", true, version]),
      claims: 0,
      ring: "7",
    });
  });

  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: Python finds its versions, and it finds Python's`,
    async () => {
      await using server = await lendServer();
      await runProgram(runtime, server.env, `${make} await make("node", 1); tell("made");`);
      const python = `
      client = tensord.connect()
      with client.create("weights", np.array([2], np.float32), version="python", ttl=60) as region:
          region.seal()
      with client.attach("weights", version="node") as node, client.attach("weights") as newest:
          tell([node.numpy().tolist(), newest.version])
    `;
      expect(await runPython(server.env, python)).toEqual([[1], "python"]);
      const node = `
      const client = await connect();
      const region = await client.attach("weights", { version: "python" });
      const again = await client.getOrCreate("weights", () => new Uint8Array(1), { version: "python" });
      tell([...region.tensor().array("F32"), again.isCreated]);
    `;
      expect(await runProgram<unknown>(runtime, server.env, node)).toEqual([2, false]);
    },
  );
}
