/** The Node client as a package: its types are the document's, its README's examples compile and run, `using` works. */

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findExamples, runExamples } from "../harness/examples.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { NodeProgram, needsNodeClient, node, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";

afterAll(endLentServers);

test("its HTTP types are those of openapi.yaml", () => {
  const { exitCode, stderr } = Bun.spawnSync([node, "clients/node/scripts/generate.mjs", "--check"], { cwd: root });
  expect([exitCode, String(stderr)]).toEqual([0, expect.any(String)]);
});

const directory = join(root, ".tmp/node-client-readme");
const interpreters = { node, bun: process.execPath };

/** Writes and compiles modules as a user would for Node 20. @returns the paths of what came out, in their order */
function compile(modules: readonly string[]): string[] {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2022", "ESNext.Disposable"],
    module: "NodeNext",
    types: ["node"],
    strict: true,
    noUncheckedIndexedAccess: true,
  };
  writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions }));
  for (const [index, text] of modules.entries()) writeFileSync(join(directory, `example-${index}.mts`), text);
  const { exitCode, stdout } = Bun.spawnSync([join(root, "node_modules/.bin/tsc"), "-p", directory]);
  expect([exitCode, String(stdout)]).toEqual([0, ""]);
  return modules.map((_, index) => join(directory, `example-${index}.mjs`));
}

/** Runs it to its own end: whatever it left open must not hold it. @returns what it printed */
async function runModule(command: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  const child = Bun.spawn([...command], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect([status, stderr]).toEqual([0, ""]);
  return stdout;
}

testWith(needsNodeClient)(
  "the README's examples compile, and run as they stand in Node and in Bun, in any order, on one server",
  async () => {
    const examples = findExamples(readFileSync(join(root, "clients/node/README.md"), "utf8"), "js", "ts");
    // All of them are TypeScript too; what only TypeScript knows is run as it is compiled.
    const paths = compile(examples.map(({ text }) => text)).map((compiled, index) => {
      if (examples[index]?.language === "ts") return compiled;
      const path = join(directory, `printed-${index}.mjs`);
      writeFileSync(path, examples[index]?.text ?? "");
      return path;
    });
    await using server = await lendServer();
    for (const runtime of Object.keys(runtimes) as Runtime[]) {
      const order = runtime === "node" ? examples.toReversed() : examples;
      const printed = await runExamples(order, (example) =>
        runModule([interpreters[runtime], paths[examples.indexOf(example)] ?? ""], server.env),
      );
      expect(examples.map((example) => printed.get(example)).filter((text) => text !== "")).toEqual([
        "F32 [ 2, 3 ] 42\n",
        "descriptor Float32Array(3) [ 1, 2, 3 ]\n",
        expect.stringMatching(/^tensord\.region\.allocated reg_\S+\n$/),
        expect.stringMatching(/^Cannot find|nothing/),
      ]);
    }
  },
);

testWith(needsNodeClient)("what `using` declares is closed at the end of its block, also when it throws", async () => {
  await using server = await lendServer();
  const [path = ""] = compile([
    `
      import { connect, isTensordError, type OpenedTensor, type Region } from "@tensord/client";
      const kept: { region?: Region; tensor?: OpenedTensor } = {};
      using client = await connect();
      try {
        using region = await client.create("used", new Float32Array([1]), { ttlMs: 60_000 });
        using tensor = client.open(region.tensor().ref());
        Object.assign(kept, { region, tensor });
        const [value]: Float32Array = region.tensor().array("F32");
        if (!region.isClosed) throw new Error("left with " + value);
      } catch (error) {
        console.log(String(error), kept.region?.isClosed, kept.tensor?.isClosed, isTensordError(error));
      }
      // What does not compile: a region has one owner, and content is a typed array.
      // @ts-expect-error
      client.create("x", new Uint8Array(1), { ttlMs: 1, persist: true }).catch(() => undefined);
      // @ts-expect-error
      client.create("x", [1, 2], { ttlMs: 1 }).catch(() => undefined);
    `,
  ]);
  const printed = await runModule([node, path], server.env);
  expect(printed).toBe("Error: left with 1 true true false\n");
});

testWith(needsNodeClient)("it exports what its README speaks of, and nothing else at run time", async () => {
  const source = `tell(Object.keys(await import("@tensord/client")).sort());`;
  expect(await runProgram("node", {}, source)).toEqual([
    "TensorReference",
    "TensordError",
    "connect",
    "isTensordError",
  ]);
});

testWith(needsNodeClient)("`using` finds its symbol on a Node that has none", async () => {
  const source = `
    const { length, name, prototype, dispose, asyncDispose, ...statics } = Object.getOwnPropertyDescriptors(Symbol);
    const native = Symbol;
    globalThis.Symbol = Object.defineProperties((description) => native(description), statics);
    const { connect } = await import("@tensord/client");
    const client = await connect();
    console.log(JSON.stringify([native.dispose === Symbol.dispose, typeof Symbol.dispose, typeof client[Symbol.dispose]]));
  `;
  await using program = new NodeProgram([node, "--input-type=module", "--eval", source], {});
  expect(await program.hear()).toEqual([false, "symbol", "function"]);
});
