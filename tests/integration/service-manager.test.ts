/** What a service manager hears: a server is ready when it is, stops when it stops, and runs on where nobody hears it. */

import { afterAll, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, python, root, testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

/** Prints a line, then each datagram that a socket gets, as JSON: the runtime has no such socket. */
const listener = `
import json, socket, sys
name = sys.argv[1]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
    heard.bind("\\0" + name[1:] if name.startswith("@") else name)
    print("listening", flush=True)
    while True:
        print(json.dumps(heard.recv(4096).decode()), flush=True)
`;

class Listener implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  constructor(name: string) {
    this.#child = Bun.spawn([python ?? "", "-c", listener, name], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    this.#lines = toLines(this.#child.stdout);
  }

  async hear(): Promise<string> {
    return (await this.#lines.next()).value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

async function* toLines(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + new TextDecoder().decode(bytes)).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

for (const [kind, toName] of [
  ["a path", (folder: string) => join(folder, "notify")],
  ["an abstract name", (folder: string) => `@tensord-test-${folder.split("/").at(-1)}`],
] as const) {
  testWith(needsPython)(`${kind} in NOTIFY_SOCKET is told that the server is ready, and that it stops`, async () => {
    const folder = mkdtempSync(join(tmpdir(), "tensord-notify-"));
    try {
      const name = toName(folder);
      await using heard = new Listener(name);
      expect(await heard.hear()).toBe("listening");
      await using server = await startServer({ env: { NOTIFY_SOCKET: name } });
      const ready = JSON.parse(await heard.hear());
      expect(ready).toBe(`READY=1\nSTATUS=ready on unix://${server.instance.socket}\n`);
      await server.stop();
      expect(JSON.parse(await heard.hear())).toBe("STOPPING=1\n");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

for (const [name, said] of [
  ["/nowhere/notify", "nobody listens on /nowhere/notify, which NOTIFY_SOCKET names"],
  ["vsock:2:1", 'NOTIFY_SOCKET is "vsock:2:1", want a path or @name of at most 107 bytes'],
] as const) {
  testWith()(`NOTIFY_SOCKET=${name} is told on standard error, and the server serves`, async () => {
    await using server = await startServer({ env: { NOTIFY_SOCKET: name } });
    await server.api.create({ byte_size: 1, ttl_ms: 60_000 });
    await server.stop();
    const lines = ["READY=1", "STOPPING=1"].map(
      (line) => `tensord: Cannot tell the service manager ${line}: ${said}\n`,
    );
    expect(server.log.errors).toBe(lines.join(""));
    server.log.errors = "";
  });
}

const needsSystemd = Bun.which("systemd-analyze") === null ? "needs systemd-analyze, of systemd" : undefined;

const units = ["tensord.service", "tensord-fd-holder.service", "tensord-fd-holder.socket"];

testWith(needsSystemd)("systemd finds nothing wrong with the units", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-unit-"));
  try {
    // It looks whether the program is there.
    const program = join(folder, "tensord");
    cpSync("/bin/true", program);
    for (const name of units) {
      const unit = readFileSync(join(root, "deploy/systemd", name), "utf8");
      writeFileSync(join(folder, name), unit.replace("/usr/bin/tensord", program));
    }
    const { exitCode, stderr } = Bun.spawnSync([
      "systemd-analyze",
      "verify",
      "--man=no",
      ...units.map((name) => join(folder, name)),
    ]);
    const said = String(stderr)
      .split("\n")
      .filter((line) => line.includes("tensord"));
    expect([said, exitCode]).toEqual([[], 0]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const needsSysusers = Bun.which("systemd-sysusers") === null ? "needs systemd-sysusers, of systemd" : undefined;

testWith(needsSysusers)("systemd would make the unit's user", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-root-"));
  try {
    const path = join(root, "deploy/systemd/tensord.sysusers");
    const { exitCode, stderr } = Bun.spawnSync(["systemd-sysusers", "--dry-run", `--root=${folder}`, path]);
    expect([exitCode, String(stderr)]).toEqual([0, expect.stringContaining("user 'tensord'")]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the units name no setting that is none, and do not forbid what the runtime does", () => {
  const [unit = "", ...others] = units.map((name) =>
    readFileSync(join(root, "deploy/systemd", name), "utf8").replaceAll(/^#.*$/gm, ""),
  );
  expect([unit, ...others].join("")).not.toContain("MemoryDenyWriteExecute");
  expect([...unit.matchAll(/TENSORD_\w+/g)].map(String)).toEqual(["TENSORD_PORT", "TENSORD_HOLDER_SOCKET"]);
  expect(others.join("")).not.toMatch(/TENSORD_/);
});
