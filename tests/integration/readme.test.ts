/** What README.md shows is run as it is printed, on a server of the test's own. */

import { afterAll, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Example, findExamples, runExamples } from "../harness/examples.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsRoom, needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";
import { takeRoom } from "../harness/instance-room.ts";
import { needsNodeClient, node } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { tensord } from "../harness/server-program.ts";

const MiB = 2 ** 20;

afterAll(assertNothingLeft);

const readme = readFileSync(join(root, "README.md"), "utf8");

/** The code blocks of one language under a heading. */
function examples(heading: string, language: string): Example[] {
  const section = readme.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? "";
  const found = findExamples(section, language);
  expect(found.length, `examples in ${language} under ${heading}`).toBeGreaterThan(0);
  return found;
}

/** The first goes on in the second. */
function curlExample(): Example {
  return {
    language: "sh",
    text: examples("With curl", "sh")
      .map(({ text }) => text)
      .join("\n"),
  };
}

const commands: Readonly<Record<string, readonly string[]>> = {
  sh: ["sh", "-e"],
  python: [stockPython, "-"],
  js: [node, "--input-type=module", "-"],
};

/** Runs one as it is printed, but for the default server's address. @returns what it printed */
async function run({ language, text }: Example, server: TestServer, url: string): Promise<string> {
  const { socket, shmDirectory, name } = server.instance;
  const input = text
    .replaceAll("http://127.0.0.1:7411", url)
    .replaceAll("/dev/shm/tensord.default/http.sock", socket)
    .replaceAll(theFile, (await server.api.findByName("weights"))?.storage.path ?? "");
  const env = { PATH: process.env.PATH ?? "", TENSORD_SHM_DIR: shmDirectory, TENSORD_INSTANCE: name };
  const child = Bun.spawn([...(commands[language] ?? [])], {
    cwd: root,
    env,
    stdin: new Blob([input]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect([status, stderr], `${text}\n${stdout}`).toEqual([0, ""]);
  return stdout;
}

/** What it calls the file of a region, which only the answer tells. */
const theFile = "/dev/shm/tensord.default.…";

testWith(needsStockPython ?? needsNodeClient)(
  "README.md shows what works, in curl, Python and Node, twice and in any order",
  async () => {
    await using server = await startServer({ env: { TENSORD_PORT: "0" } });
    const url = await server.readUrl();
    const curl = curlExample();
    const python = examples("With Python", "python");
    const js = examples("With Node", "js");
    const unnamed = examples("Where names do not reach", "python");
    const all = [curl, ...python, ...js, ...unnamed];
    const others = all.filter(({ text }) => !text.includes(theFile));
    for (const order of [others.toReversed(), others]) {
      const printed = await runExamples(order, (example) => run(example, server, url));
      const answers = printed.get(curl) ?? "";
      expect(answers).toContain('"name":"hello"');
      expect(answers).toContain('{"written_bytes":24}00000000{"items":[');
      expect(answers).toContain('"type":"tensord.region.allocated"');
      expect(answers).not.toContain("urn:tensord:problem:");
      const inPython = python.map((example) => printed.get(example));
      expect(inPython.slice(1, 3)).toEqual(["42.0 (1024, 1024)\n", "9.0\n"]);
      expect(inPython[3]).toMatch(/^\d{16} tensord\.region\.allocated noise\n$/);
      expect(js.map((example) => printed.get(example))).toEqual(["42 [ 1024, 1024 ]\n"]);
      expect(unnamed.map((example) => printed.get(example))).toEqual(["descriptor\n"]);
      // While the region stands, as it says there.
      for (const example of all.filter((each) => !others.includes(each)))
        expect(await run(example, server, url)).toStartWith("[[42.");
    }
  },
);

/**
 * What goes on until it is stopped, and what wants a server that is stopped. Of the others, `free` ends with 1 where less
 * may go than was asked for, and `doctor` where this host has an error.
 */
const endless = ["events", "top"];
const offline = ["ls --offline", "purge"];
/** What it calls the folder of model files. */
const theModels = "/models/";

testWith(needsRoom(1200 * MiB))("README.md shows commands that work, each as it is printed", async () => {
  using _room = await takeRoom();
  const models = mkdtempSync(join(tmpdir(), "tensord-models-"));
  const header = '{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}    ';
  writeFileSync(join(models, "llama.safetensors"), `${String.fromCharCode(header.length)}${"\0".repeat(7)}${header}x`);
  await using server = await startServer({ env: { TENSORD_PORT: "0", TENSORD_MODEL_ROOTS: models } });
  // The engine that it runs.
  writeFileSync(join(models, "llama-server"), '#!/bin/sh\nls "$2"\n', { mode: 0o755 });
  // What some worker has made.
  const { id } = await server.api.create({ name: "weights", byte_size: 1000, ttl_ms: 3_600_000 });
  await server.api.seal(id);
  const lines = examples("On the command line", "sh")[0]?.text.trimEnd().split("\n") ?? [];
  const commands = lines.map((line) => /^npx tensord (.*?)\s*(#|$)/.exec(line)?.[1] ?? line);
  expect(commands).toContain("status");
  const online = commands.filter((each) => !offline.includes(each));
  for (const command of online) {
    const isEndless = endless.includes(command);
    const line = command.replace(theModels, `${models}/`);
    const program = command === online[0] ? launcher : tensord;
    const { status, stdout, stderr } = await runCommand(server, line, { isEndless, programs: models, program });
    expect({ command, stderr }).toEqual({ command, stderr: "" });
    expect(status, command).toBeOneOf(command === "doctor" || command.startsWith("free ") ? [0, 1] : [0]);
    expect(stdout, command).not.toBe("");
  }
  expect(await server.api.findByName("buffer")).toBeUndefined();
  await server.stop();
  for (const command of offline) {
    expect(commands).toContain(command);
    expect(await runCommand(server, command)).toMatchObject({ status: 0, stderr: "" });
  }
  rmSync(models, { recursive: true });
});

/** What `npx tensord` runs in a checkout, which looks each time whether there is anything to set up: the first line does. */
const launcher = [node, join(root, "scripts/tensord.mjs")];

/** Runs one line, and stops it by Ctrl-C's signal once it has shown something, if it would not end. */
async function runCommand(
  { instance, api }: TestServer,
  command: string,
  { isEndless = false, programs = "/nowhere", program = tensord } = {},
) {
  const child = Bun.spawn([...program, ...command.split(" ")], {
    cwd: root,
    env: {
      PATH: `${programs}:${process.env.PATH}`,
      HOME: process.env.HOME ?? "",
      TENSORD_SHM_DIR: instance.shmDirectory,
      TENSORD_INSTANCE: instance.name,
      TENSORD_PORT: "",
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  // There must be something to follow.
  const happening = setInterval(() => void (isEndless && api.create({ byte_size: 1, ttl_ms: 1000 })), 200);
  let stdout = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    stdout += chunk;
    if (isEndless) child.kill("SIGINT");
  }
  clearInterval(happening);
  return { status: await child.exited, stdout, stderr: await new Response(child.stderr).text() };
}
