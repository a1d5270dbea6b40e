/**
 * `getOrCreate`: of all processes that want a name, in either language, one builds it, whoever dies meanwhile. And what
 * whoever makes a region chose for a pool that is full.
 */

import { afterAll, expect } from "bun:test";
import { concurrentTestWith, needsStockPython, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  type NodeProgram,
  needsNodeClient,
  runProgram,
  startProgram,
  startPython,
  usualRuntimes,
} from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

/** Waits for its turn, says so when it builds, and goes on when it is told to. */
const builder = `
  const client = await connect(patient);
  // A server that answered once is waited for when it is away.
  await client.stats();
  tell("ready");
  await receive();
  const region = await client.getOrCreate("built", async () => {
    tell("builds");
    return new Float32Array([await receive(), 2, 3]);
  }, { checksum: true });
  tell([region.isCreated, region.state, region.isWritable, ...region.tensor().array("F32")]);
  await receive();
`;

const pythonBuilder = `
  client = tensord.connect()
  tell("ready")
  receive()
  def build():
      tell("builds")
      return np.array([receive(), 2, 3], np.float32)
  region = client.get_or_create("built", build)
  tell([region.created, region.state, False, *region.numpy().tolist()])
  receive()
`;

/** Starts them at the same moment. @returns what each says first, as it comes */
async function start(programs: readonly NodeProgram[]) {
  for (const program of programs) expect(await program.hear()).toBe("ready");
  for (const program of programs) await program.say("go");
  const heard = programs.map((program) => program.hear());
  return { heard, first: await Promise.race(heard.map(async (said, index) => ({ said: await said, index }))) };
}

async function claims({ api }: TestServer): Promise<number> {
  return (await api.stats()).claims;
}

for (const runtime of usualRuntimes) {
  const test = testWith(needsNodeClient);

  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: with Python, of six processes that race for a name one builds it`,
    async () => {
      await using server = await lendServer();
      await using stack = new AsyncDisposableStack();
      const programs = [0, 1, 2, 3, 4, 5].map((index) =>
        stack.use(
          index % 2 === 0 ? startProgram(runtime, server.env, builder) : startPython(server.env, pythonBuilder),
        ),
      );
      const { heard, first } = await start(programs);
      expect(first.said).toBe("builds");
      const winner = programs[first.index];
      await winner?.say(1);
      // Whoever built as well would say so here instead of showing the region.
      const seen = await Promise.all(
        programs.map((program) => (program === winner ? program.hear() : heard[programs.indexOf(program)])),
      );
      expect(seen).toEqual(programs.map((program) => [program === winner, "sealed", false, 1, 2, 3]));
      expect((await server.api.list()).map(({ name, owner }) => [name, owner])).toEqual([
        ["built", { kind: "linger", linger_ms: 600_000, handoff_ms: 60_000 }],
      ]);
      expect(await claims(server)).toBe(0);
    },
  );

  test(`${runtime}: a builder that is killed, twice, is followed by the next in line`, async () => {
    await using server = await lendServer();
    await using stack = new AsyncDisposableStack();
    const programs = [0, 1, 2].map(() => stack.use(startProgram(runtime, server.env, builder)));
    const { heard, first } = await start(programs);
    let { index } = first;
    const waiting = new Map(heard.map((said, at) => [at, said]));
    for (let kill = 0; kill < 2; kill++) {
      waiting.delete(index);
      await programs[index]?.kill();
      const next = await Promise.race([...waiting].map(async ([at, said]) => ({ said: await said, at })));
      expect(next.said).toBe("builds");
      index = next.at;
    }
    const last = programs[index];
    await last?.say(9);
    expect(await last?.hear()).toEqual([true, "sealed", false, 9, 2, 3]);
    expect(
      await runProgram(
        runtime,
        server.env,
        `
      const client = await connect();
      const region = await client.getOrCreate("built", () => { throw new Error("nobody builds it again"); });
      tell([region.isCreated, region.tensor().array("F32")[0]]);
    `,
      ),
    ).toEqual([false, 9]);
  });

  test(`${runtime}: a builder killed after it created leaves nothing that another could take for built`, async () => {
    await using server = await lendServer();
    await using first = startProgram(
      runtime,
      server.env,
      `
        // It dies in the middle of the copy: only the seal makes a region of it.
        const client = await connect();
        const half = { dtype: "U8", shape: [2 ** 26], data: new Uint8Array(2 ** 26).fill(1) };
        tell("builds");
        await client.getOrCreate("built", () => half);
        tell("built");
      `,
    );
    expect(await first.hear()).toBe("builds");
    await until("its region is there", async () => (await server.api.findByName("built")) !== undefined);
    await first.kill();
    const seen = await runProgram<[boolean, number]>(
      runtime,
      server.env,
      `
      const client = await connect();
      const region = await client.getOrCreate("built", () => new Uint8Array(2 ** 26).fill(2));
      const array = region.tensor().array("U8");
      tell([region.state, array.every((value) => value === array[0])]);
    `,
    );
    expect(seen as unknown).toEqual(["sealed", true]);
  });

  test(`${runtime}: a build that throws, or cannot be stored, frees the name for the next`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const error = await client.getOrCreate("built", async () => { throw new Error("no weights"); }).catch((error) => error);
        const bad = await codeOf(() => client.getOrCreate("built", () => ({ x: [1] })));
        const full = await codeOf(() => client.getOrCreate("built", () => ({ dtype: "U8", shape: [2 ** 52] })));
        const { claims, regions } = await client.stats();
        let release;
        const slow = client.getOrCreate("built", () => new Promise((resolve) => { release = resolve; }));
        while (release === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
        // The same session, too, waits for itself.
        const late = await codeOf(() => client.getOrCreate("built", () => new Uint8Array(1), { timeoutMs: 60 }));
        const negative = await codeOf(() => client.getOrCreate("built", () => new Uint8Array(1), { timeoutMs: -1 }));
        release(new Uint8Array([7]));
        const [mine, theirs] = [await slow, await client.getOrCreate("built", () => new Uint8Array(1), { timeoutMs: 180_000, strict: true })];
        tell({ error: error.message, bad, full, claims, open: regions.open, late, negative,
          created: [mine.isCreated, theirs.isCreated], values: [mine.tensor().array()[0], theirs.tensor().array()[0]] });
      `,
    );
    expect(seen).toEqual({
      error: "no weights",
      bad: "validation-failed",
      full: "pool-full",
      claims: 0,
      open: 0,
      late: "deadline-exceeded",
      negative: "validation-failed",
      created: [true, false],
      values: [7, 7],
    });
  });

  test(`${runtime}: a restart of the server does not take the claim from its builder`, async () => {
    await using server = await lendServer();
    await using program = startProgram(runtime, server.env, builder);
    await using other = startProgram(runtime, server.env, builder);
    await start([program]);
    await other.hear();
    await other.say("go");
    await server.crash();
    await program.say(5);
    expect(await program.hear()).toEqual([true, "sealed", false, 5, 2, 3]);
    expect(await other.hear()).toEqual([false, "sealed", false, 5, 2, 3]);
  });
}

for (const runtime of usualRuntimes) {
  // Beside the other runtime's, since it waits for 10 s.
  concurrentTestWith(needsNodeClient)(
    `${runtime}: a full pool is refused, waited for, or made room in, as the caller chose`,
    async () => {
      // 8 MiB of it are the server's own.
      await using server = await startServer({ env: { TENSORD_MEMORY_LIMIT_BYTES: String(24 * 2 ** 20) } });
      const seen = await runProgram(
        runtime,
        server.env,
        `
        const client = await connect();
        const make = async (name, options) => (await client.create(name, { dtype: "U8", shape: [7 * 2 ** 20] }, { ttlMs: 600_000, ...options })).close();
        const made = (name, options) => codeOf(() => make(name, options));
        const names = async () => {
          const found = [];
          for await (const { name } of client.list()) found.push(name);
          return found.sort().join();
        };
        await make("a");
        await make("b");
        // What may be evicted must be sealed.
        await client.change(await client.get("b"), { evictable: true });
        const refused = [await made("c"), await made("c", { onFull: "fail", deadlineMs: 60_000 }), await made("c", { onFull: "evict" })];
        const started = performance.now();
        refused.push(await made("c", { onFull: "wait", deadlineMs: 50 }));
        // The default is half a minute.
        const isSoon = performance.now() - started < 20_000;
        const before = await names();
        const waiting = made("c", { onFull: "wait", deadlineMs: 60_000 });
        // It is in line as soon as another one, for which there is room, has to wait behind it.
        const behind = async () => codeOf(async () => {
          const small = await client.create(null, new Uint8Array(1), { ttlMs: 600_000, onFull: "wait", deadlineMs: 20 });
          small.close();
          await client.delete(small);
        });
        while (await behind() !== "deadline-exceeded");
        await client.delete(await client.get("b"));
        const waited = [await waiting, await names()];
        const c = await client.attach("c", { writable: true });
        await c.seal();
        c.close();
        await client.change(c, { evictable: true });
        const evicted = [await made("d")];
        // What was handed out less than 10 s ago is not evicted yet.
        while ((evicted[1] = await made("d", { onFull: "evict" })) === "pool-full") await new Promise((resolve) => setTimeout(resolve, 500));
        evicted.push(await made("e"), await names());
        const built = () => client.getOrCreate("e", () => ({ dtype: "U8", shape: [7 * 2 ** 20] }), { onFull: "wait", deadlineMs: 50 });
        tell({ refused, isSoon, before, waited, evicted, built: await codeOf(built) });
      `,
      );
      expect(seen).toEqual({
        refused: ["pool-full", "pool-full", "pool-full", "deadline-exceeded"],
        isSoon: true,
        before: "a,b",
        waited: ["no error", "a,c"],
        evicted: ["pool-full", "no error", "pool-full", "a,d"],
        built: "deadline-exceeded",
      });
    },
  );
}
