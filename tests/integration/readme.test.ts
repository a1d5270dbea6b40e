/** What README.md shows is run as it is printed, on a server of the test's own. */

import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsRoom, needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";
import { takeRoom } from "../harness/instance-room.ts";
import { needsNodeClient, node } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

const MiB = 2 ** 20;

afterAll(assertNothingLeft);

const readme = readFileSync(join(root, "README.md"), "utf8");

/** The code blocks of one language under a heading. */
function examples(heading: string, language: string): string[] {
  const section = readme.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? "";
  const blocks = [...section.matchAll(/^```(\w+)\n(.*?)^```$/gms)];
  const found = blocks.filter(([, name]) => name === language).map(([, , text = ""]) => text);
  expect(found.length, `examples in ${language} under ${heading}`).toBeGreaterThan(0);
  return found;
}

/** Runs one as it is printed, but for the default server's address. @returns what it printed */
async function run(command: readonly string[], text: string, server: TestServer, url: string): Promise<string> {
  const { socket, shmDirectory, name } = server.instance;
  const input = text
    .replaceAll("http://127.0.0.1:7411", url)
    .replaceAll("/dev/shm/tensord.default/http.sock", socket)
    .replaceAll("/dev/shm/tensord.default.…", await findFile(server));
  const env = { PATH: process.env.PATH ?? "", TENSORD_SHM_DIR: shmDirectory, TENSORD_INSTANCE: name };
  const child = Bun.spawn([...command], {
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

async function findFile(server: TestServer): Promise<string> {
  return (await server.api.findByName("weights"))?.storage.path ?? "";
}

testWith(needsStockPython ?? needsNodeClient)("README.md shows what works, in curl, Python and Node", async () => {
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  const url = await server.readUrl();

  const curl = await run(["sh", "-e"], examples("With curl", "sh").join("\n"), server, url);
  expect(curl).toContain('"name":"hello"');
  expect(curl).toContain('{"written_bytes":24}00000000{"items":[');
  expect(curl).toContain('"type":"tensord.region.allocated"');
  expect(curl).not.toContain("urn:tensord:problem:");

  const printed: string[] = [];
  for (const text of examples("With Python", "python")) printed.push(await run([stockPython, "-"], text, server, url));
  expect(printed[1]).toBe("42.0 (1024, 1024)\n");
  expect(printed[2]).toBe("9.0\n");
  expect(printed[3]).toMatch(/^\d{16} tensord\.region\.allocated noise\n$/);
  expect(printed[4]).toStartWith("[[42.");

  const [script = ""] = examples("With Node", "js");
  const shown = await run([node, "--input-type=module", "-"], script, server, url);
  expect(shown).toBe("42 [ 1024, 1024 ]\n");
});

/**
 * What goes on until it is stopped, and what wants a server that is stopped. Of the others, `free` ends with 1 where less
 * may go than was asked for, and `doctor` where this host has an error.
 */
const endless = ["events", "top"];
const offline = ["ls --offline", "purge"];

testWith(needsRoom(1200 * MiB))("README.md shows commands that work, each as it is printed", async () => {
  using _room = await takeRoom();
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  const lines = examples("On the command line", "sh")[0]?.trimEnd().split("\n") ?? [];
  const commands = lines.map((line) => /^npx tensord (.*?)\s*(#|$)/.exec(line)?.[1] ?? line);
  expect(commands).toContain("status");
  for (const command of commands.filter((each) => !offline.includes(each))) {
    const isEndless = endless.includes(command);
    const { status, stdout, stderr } = await runCommand(server, command, isEndless);
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
});

/** Runs one line, and stops it by Ctrl-C's signal once it has shown something, if it would not end. */
async function runCommand({ instance, api }: TestServer, command: string, isEndless = false) {
  const child = Bun.spawn([node, join(root, "scripts/tensord.mjs"), ...command.split(" ")], {
    cwd: root,
    env: {
      PATH: process.env.PATH ?? "",
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
