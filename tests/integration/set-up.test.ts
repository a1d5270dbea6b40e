/** What `npm start` and `npm test` have npm install, and when: in a copy of the scripts, with an npm that writes down what it is asked. */

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../harness/instance-needs.ts";
import { node } from "../harness/node-program.ts";
import { within } from "../harness/server-wait.ts";

const folder = mkdtempSync(join(tmpdir(), "tensord-set-up-"));
afterAll(() => rmSync(folder, { recursive: true }));

const forServer = "ci --omit=dev --workspaces=false";
const beside = "install --no-save";

/** Removes what npm removes, leaves a Bun that says its version and the list of what is there, and fails if it is told to. */
const npm = `import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
const args = process.argv.slice(2);
appendFileSync("asked", args.join(" ") + "\\n");
if (args[0] === "ci") rmSync("node_modules", { recursive: true, force: true });
if (existsSync("offline")) { console.error("npm error code ENOTFOUND"); process.exit(1); }
const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
const { version } = packages["node_modules/bun"];
mkdirSync("node_modules/.bin", { recursive: true });
mkdirSync("node_modules/bun", { recursive: true });
writeFileSync("node_modules/bun/package.json", JSON.stringify({ version }));
writeFileSync("node_modules/.bin/bun", "#!/bin/sh\\necho " + version + "\\n", { mode: 0o755 });
writeFileSync("node_modules/.package-lock.json", JSON.stringify({ packages }));
`;

const clone = join(folder, "clone");
const inClone = (path: string) => join(clone, path);

beforeEach(() => {
  rmSync(clone, { recursive: true, force: true });
  mkdirSync(clone);
  for (const path of ["scripts", "package.json", "package-lock.json", ".npmrc"]) {
    cpSync(join(root, path), inClone(path), { recursive: true });
  }
  writeFileSync(join(folder, "npm-cli.js"), npm);
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
});

type SetUp = "setUpServer" | "setUpPackages";

/** @returns what it said, and whether it went well. */
async function setUp(...names: readonly SetUp[]) {
  const program = `const [{ main }, setUps] = await Promise.all(["process", "server-packages"].map((name) => import("./scripts/lib/" + name + ".mjs")));
    await main(async () => { for (const name of ${JSON.stringify(names)}) await setUps[name](); });`;
  const child = Bun.spawn([node, "--input-type=module", "-e", program], {
    cwd: clone,
    env: { PATH: process.env.PATH ?? "", npm_execpath: join(folder, "npm-cli.js") },
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    const ending = Promise.all([new Response(child.stderr).text(), child.exited]);
    const [stderr, status] = await within("the set-up ends", ending);
    return { stderr, status };
  } finally {
    child.kill("SIGKILL");
  }
}

/** What npm was asked since the last time, without the flags that it always has. */
function asked(): string[] {
  if (!existsSync(inClone("asked"))) return [];
  const lines = readFileSync(inClone("asked"), "utf8").trimEnd().split("\n");
  rmSync(inClone("asked"));
  return lines.map((line) => line.replace(/ --prefer-offline .*$/, ""));
}

describe("on a fresh clone", () => {
  test("the server's packages alone are installed for it, once", async () => {
    expect(await setUp("setUpServer", "setUpServer")).toMatchObject({ status: 0 });
    expect(asked()).toEqual([forServer]);
    expect(await setUp("setUpServer")).toEqual({ status: 0, stderr: "" });
    expect(asked()).toEqual([]);
  });

  test("the rest comes beside them, so that a server that runs loses nothing, and both are then there for good", async () => {
    await setUp("setUpServer");
    writeFileSync(inClone("node_modules/of-the-server"), "");
    await setUp("setUpPackages", "setUpServer", "setUpPackages");
    expect(asked()).toEqual([forServer, beside]);
    expect(existsSync(inClone("node_modules/of-the-server"))).toBeTrue();
  });

  test("everything is installed at once where everything is wanted first", async () => {
    await setUp("setUpPackages", "setUpServer", "setUpPackages");
    expect(asked()).toEqual(["ci"]);
  });

  test("what npm was called for by hand is not installed again, and not taken away", async () => {
    await setUp("setUpPackages");
    for (const stamp of [".tensord-set-up", ".tensord-server-set-up"]) rmSync(inClone(`node_modules/${stamp}`));
    await setUp("setUpServer");
    expect(asked()).toEqual(["ci"]);
  });

  test("a network that fails is said in a sentence, and the next start tries again", async () => {
    writeFileSync(inClone("offline"), "");
    const { status, stderr } = await setUp("setUpServer");
    expect(status).toBe(1);
    expect(stderr).toContain("tensord: Cannot install the packages: npm's registry cannot be reached (ENOTFOUND).");
    rmSync(inClone("offline"));
    expect(await setUp("setUpServer")).toMatchObject({ status: 0 });
    expect(asked()).toEqual([forServer, forServer]);
  });
});

describe("after a change of the lock file", () => {
  const change = () => {
    const lock = JSON.parse(readFileSync(inClone("package-lock.json"), "utf8"));
    lock.packages["node_modules/hono"].version = "0.0.1";
    writeFileSync(inClone("package-lock.json"), JSON.stringify(lock));
  };

  test("who had the server's packages alone gets these anew", async () => {
    await setUp("setUpServer");
    change();
    await setUp("setUpServer");
    expect(asked()).toEqual([forServer, forServer]);
  });

  test("who had everything gets everything anew, also by a start of the server", async () => {
    await setUp("setUpPackages");
    change();
    await setUp("setUpServer");
    await setUp("setUpPackages");
    expect(asked()).toEqual(["ci", "ci"]);
  });

  test("who had the server's packages gets all of them anew for the rest", async () => {
    await setUp("setUpServer");
    change();
    await setUp("setUpPackages");
    expect(asked()).toEqual([forServer, "ci"]);
  });
});
