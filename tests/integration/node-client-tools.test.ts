/** The Node client where people's tools take it: bundled, in CommonJS, and as TypeScript of an older kind sees it. */

import { afterAll, expect } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, node } from "../harness/node-program.ts";

afterAll(endLentServers);

const directory = join(root, ".tmp/node-client-tools");
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory, { recursive: true });
/** Where no package is. */
const bare = mkdtempSync(join(tmpdir(), "tensord-bundle-"));
afterAll(() => rmSync(bare, { recursive: true }));

/** Asks for what needs no memory first, and then maps. */
const use = `
  const client = await connect();
  const { epoch } = await client.stats();
  const outcome = await client.create(null, new Float32Array(3), { ttlMs: 60_000 }).then(
    (region) => String(region.tensor().shape),
    ({ code, detail, hint }) => [code, detail, hint].join(" | "),
  );
  console.log(typeof epoch, outcome);
  client.close();
`;

const sources = {
  "module.mjs": `import { connect } from "@tensord/client";\n${use}`,
  "common.cjs": `const { connect } = require("@tensord/client");\n(async () => {${use}})();`,
};

const formats: Readonly<Record<string, "esm" | "cjs">> = { "module.mjs": "esm", "common.cjs": "cjs" };

async function run(path: string, env: Readonly<Record<string, string>>): Promise<string> {
  const child = Bun.spawn([node, path], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect([status, stderr]).toEqual([0, ""]);
  return stdout.trim();
}

/** Bundles a source as esbuild does by itself, into one file. */
function bundle(source: string, format: "esm" | "cjs", target: string): string {
  const { exitCode, stderr } = Bun.spawnSync([
    ...[join(root, "node_modules/.bin/esbuild"), source, "--bundle", "--platform=node", "--log-level=error"],
    ...[`--format=${format}`, `--outfile=${target}`],
  ]);
  expect([exitCode, String(stderr)]).toEqual([0, ""]);
  return target;
}

testWith(needsNodeClient)("a program runs as a module, as CommonJS, and as a bundle of either", async () => {
  await using server = await lendServer();
  for (const [name, text] of Object.entries(sources)) {
    const source = join(directory, name);
    writeFileSync(source, text);
    expect([name, await run(source, server.env)]).toEqual([name, "number 3"]);
    const target = join(directory, `bundled-${name}`);
    expect([target, await run(bundle(source, formats[name] ?? "esm", target), server.env)]).toEqual([
      target,
      "number 3",
    ]);
  }
  // Of modules, CommonJS: what bundlers warn of, since modules have places of their own.
  const entry = join(directory, "entry.mjs");
  writeFileSync(entry, `import { connect } from "@tensord/client";\nvoid (async () => {${use}})();`);
  const crossed = bundle(entry, "cjs", join(directory, "crossed.cjs"));
  expect(await run(crossed, server.env)).toBe("number 3");
});

testWith(needsNodeClient)(
  "a bundle without koffi and ws beside it runs until it maps, and then says what to install",
  async () => {
    await using server = await lendServer();
    const source = join(directory, "alone.mjs");
    writeFileSync(source, sources["module.mjs"].replace("connect()", "connect({ session: false })"));
    const said = await run(bundle(source, "esm", join(bare, "alone.mjs")), server.env);
    expect(said).toMatch(
      /^number feature-unavailable \| Cannot use tensord: the package koffi is not installed beside/,
    );
    expect(said).toEndWith(
      '| install koffi and ws beside the program, and let the bundler leave them out; see "Bundlers" in the README of @tensord/client',
    );
    const listed = await fetch("http://localhost/v1/regions", { unix: server.instance.socket });
    expect(await listed.json()).toMatchObject({ items: [] });
  },
);

/** As CommonJS and as a module; older compilers, which take long, are in `clients/node/scripts/check-tools.mjs`. */
testWith(needsNodeClient)("its declarations are right in CommonJS as in a module", async () => {
  const project = join(directory, "types");
  mkdirSync(project, { recursive: true });
  const target = { module: "node16", target: "es2022", lib: ["es2022", "esnext.disposable"], types: ["node"] };
  const compilerOptions = { ...target, strict: true, noEmit: true, skipLibCheck: false };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions }));
  const text = readFileSync(join(root, "clients/node/scripts/check-tools.ts.txt"), "utf8");
  for (const name of ["use.cts", "use.mts"]) writeFileSync(join(project, name), text);
  const { exitCode, stdout } = Bun.spawnSync([join(root, "node_modules/.bin/tsc"), "-p", project]);
  expect([exitCode, String(stdout)]).toEqual([0, ""]);
});

testWith(needsNodeClient)("its package names no place of the build", async () => {
  const text = await Bun.file(join(root, "clients/node/dist/cjs/index.js")).text();
  expect(text.includes(root)).toBe(false);
});
