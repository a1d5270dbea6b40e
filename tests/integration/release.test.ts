/**
 * What is published, built from the executable under test and tried as people install it: the wheel in every run, the image and the executable
 * of the other processor in the long form. `npm run release` does so with everything.
 */

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeHostile } from "../harness/hostile-folder.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsStockPython, root, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, node } from "../harness/node-program.ts";

afterAll(assertNothingLeft);

const hourMs = 3_600_000;

const needsExecutable =
  process.env.TEST_EXECUTABLE === undefined ? "needs the executable, which a whole `npm test` builds" : undefined;
const needsLong = process.env.TEST_LONG === undefined ? "takes long: `npm test -- --long`" : undefined;
const needsX64 = process.arch === "x64" ? undefined : "needs x64, for which the tools are pinned";

/** A folder that is gone afterwards. */
class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "tensord-release-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

/** Runs the body of a module in Node with functions of the release, and what both clients need. @returns what it tells */
async function runRelease(folder: string, body: string): Promise<unknown> {
  const from = (name: string) => JSON.stringify(join(root, "scripts/lib", name));
  const source = `
    import { accept, makeInstanceName } from ${from("release/accept.mjs")};
    import { emulate } from ${from("release/emulate.mjs")};
    import { buildImage } from ${from("release/image.mjs")};
    import { installWheels } from ${from("release/install.mjs")};
    import { installImage, missingForImages } from ${from("release/run-image.mjs")};
    import { buildServerWheel } from ${from("release/wheel.mjs")};
    import { buildExecutable, executableFor } from ${from("executable.mjs")};
    const [folder, python, nodeFolder] = ${JSON.stringify([folder, join(root, ".venv/bin/python"), root])};
    // Any time, so that two builds of one commit differ from nothing but their own.
    const seconds = 1_700_000_000;
    const tell = (value) => console.log(JSON.stringify(value));
    ${body}
  `;
  // No deadline but the test's: what is compressed and fetched here takes as long as it takes.
  const child = Bun.spawn([node, "--input-type=module", "--eval", source], {
    cwd: root,
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (status !== 0) throw new Error(`it ended with ${status}:\n${stderr}`);
  return JSON.parse(stdout);
}

testWith(needsExecutable, needsStockPython, needsNodeClient)(
  "the wheel's script is the executable: installed, it does all that a release must do",
  async () => {
    using folder = new Folder();
    // To compress a hundred megabytes takes long: in the short form the script is one that becomes the executable.
    const script = join(folder.path, "script");
    writeFileSync(script, `#!/bin/sh\nexec '${join(root, "dist/tensord")}' "$@"\n`, { mode: 0o755 });
    const told = await runRelease(
      folder.path,
      `
        const program = ${needsLong === undefined ? "undefined" : JSON.stringify(script)};
        const wheel = await buildServerWheel(process.arch, seconds, folder, program);
        const installed = await installWheels(python, { wheels: [wheel], requirement: "tensord-server" });
        const times = await accept({ name: "wheel", command: [installed.command], python, nodeFolder });
        (await import("node:fs")).rmSync(installed.folder, { recursive: true });
        tell(times.map(([step]) => step));
      `,
    );
    expect(told).toEqual([
      "start",
      "version",
      "allocate 64 MiB",
      "doctor",
      "docs",
      "map from Python",
      "map from Node",
      "events",
      "stop",
    ]);
  },
  hourMs,
);

testWith(
  needsLong,
  needsExecutable,
  needsStockPython,
  needsNodeClient,
  needsX64,
)(
  "the image is four libraries and the executable, and runs as nobody, on a root that nobody can write, without a capability",
  async () => {
    using folder = new Folder();
    const told = await runRelease(
      folder.path,
      `
        const missing = await missingForImages();
        if (missing !== undefined) tell(missing);
        else {
          const instance = makeInstanceName();
          const image = await installImage(await buildImage("x64", seconds, folder), instance);
          const { spec } = image;
          await accept({ name: "image", instance, ...image, python, nodeFolder });
          const { uid, gid } = spec.process.user;
          (await import("node:fs")).renameSync(image.folder, folder + "/installed");
          tell([uid, gid, spec.root.readonly, spec.process.args]);
        }
      `,
    );
    if (typeof told === "string") return console.log(`the image is not run: it ${told}`);
    expect(told).toEqual([65_532, 65_532, true, ["/usr/bin/tensord", "serve"]]);
    const rootfs = join(folder.path, "installed/bundle/rootfs");
    const files = readdirSync(rootfs, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(rootfs.length + 1));
    expect(files.toSorted()).toEqual([
      "etc/group",
      "etc/passwd",
      ...["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"].map((name) => `lib/x86_64-linux-gnu/${name}`),
      "lib64/ld-linux-x86-64.so.2",
      "usr/bin/tensord",
      "usr/share/doc/libc6/copyright",
      ...["LICENSE", "THIRD-PARTY.txt", "sbom.cdx.json"].map((name) => `usr/share/doc/tensord/${name}`),
    ]);
  },
  hourMs,
);

testWith(
  needsLong,
  needsExecutable,
  needsStockPython,
  needsNodeClient,
  needsX64,
)(
  "the executable for arm64 does the same under qemu, in a folder whose files would stop it",
  async () => {
    using folder = new Folder();
    makeHostile(folder.path);
    const told = await runRelease(
      folder.path,
      `
        await buildExecutable("arm64");
        const command = await emulate("arm64", ${JSON.stringify(root)} + "/" + executableFor("arm64"));
        tell((await accept({ name: "arm64", command, workingFolder: folder, python, nodeFolder })).length);
      `,
    );
    expect(told).toBe(9);
  },
  hourMs,
);

testWith(needsExecutable)("whose work is inside is told, with its licence, to people and to programs", async () => {
  const told = await runRelease(
    root,
    `
      const { toBillOfMaterials, toNotices } = await import(${JSON.stringify(join(root, "scripts/lib/release/notices.mjs"))});
      tell([toNotices(process.arch), JSON.parse(toBillOfMaterials(process.arch, seconds))]);
    `,
  );
  const [notices, { components, specVersion }] = told as [
    string,
    { specVersion: string; components: { name: string; version: string; licenses: unknown[] }[] },
  ];
  expect(specVersion).toBe("1.6");
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const names = components.map(({ name }) => name);
  // What only the generated documents need is not in it.
  for (const name of ["bun", "commander", "hono", "pino", "swagger-ui-dist", "zod"]) expect(names).toContain(name);
  for (const { name, version, licenses } of components) {
    expect(licenses).toHaveLength(1);
    expect(notices).toContain(`\n${name} ${version}: `);
    if (Object.hasOwn(dependencies, name)) expect(version).toBe(dependencies[name]);
  }
  for (const text of ["GNU LIBRARY GENERAL PUBLIC LICENSE", "GNU LESSER GENERAL PUBLIC LICENSE", "JavaScriptCore"])
    expect(notices).toContain(text);
});

/** Runs `npm pack`, which makes nothing here whatever it says. */
function packRepository() {
  const { exitCode, stderr } = Bun.spawnSync(["npm", "pack", "--dry-run"], { cwd: root });
  return { status: exitCode, said: String(stderr) };
}

test("npm pack of the repository refuses with a sentence", () => {
  const { status, said } = packRepository();
  expect(status).toBe(1);
  expect(said).toContain("tensord: Cannot pack the repository: npm leaves its lock file out");
  expect(readdirSync(root).filter((name) => name.endsWith(".tgz"))).toEqual([]);
});

/** The npm package as it is installed, with `executable` in the place of the server's; without one, npm found none for this machine. */
function installLauncher(folder: string, executable?: string): string {
  const launcher = join(folder, "node_modules/tensord");
  mkdirSync(launcher, { recursive: true });
  for (const name of ["tensord.mjs", "executable.cjs"])
    Bun.spawnSync(["cp", join(root, "packaging/npm", name), launcher]);
  if (executable !== undefined) {
    const platform = join(folder, `node_modules/@tensord/server-linux-${process.arch}`);
    mkdirSync(platform, { recursive: true });
    symlinkSync(executable, join(platform, "tensord"));
  }
  return join(launcher, "tensord.mjs");
}

test("npm's command says what to do where npm has installed no executable", () => {
  using folder = new Folder();
  const { exitCode, stderr } = Bun.spawnSync([node, installLauncher(folder.path), "serve"]);
  expect([exitCode, String(stderr)]).toEqual([
    1,
    `tensord: Cannot start: there is no executable for linux ${process.arch}, want Linux with glibc on x64 or arm64. If this is one, ` +
      "install again with optional packages: npm install --include=optional tensord\n",
  ]);
});

test("npm's command hands on arguments, streams, signals, and how it ended", async () => {
  using folder = new Folder();
  const launcher = installLauncher(folder.path, node);
  const run = (program: string) => Bun.spawnSync([node, launcher, "--eval", program, "said"]);
  const status = run("console.log(process.argv[1]); process.exit(7)");
  expect([status.exitCode, String(status.stdout)]).toEqual([7, "said\n"]);
  expect(run("process.kill(process.pid, 'SIGKILL')").exitCode).toBe(137);
  const program = "process.once('SIGTERM', () => process.exit(3)); setInterval(() => {}, 1000); console.log('ready')";
  const child = Bun.spawn([node, launcher, "--eval", program], { stdout: "pipe" });
  await child.stdout.getReader().read();
  child.kill("SIGTERM");
  expect(await child.exited).toBe(3);
});
