/** What a server refuses to start on, in words that say what to do, and what it does not let itself be stopped by. */

import { afterAll, expect } from "bun:test";
import { lstatSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft, createInstance, listNames } from "../harness/instance.ts";
import { exists } from "../harness/instance-content.ts";
import { needsRoot, needsUserNamespaces, testWith, withoutInotify } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, TestServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;

afterAll(assertNothingLeft);

/** The two lines that a start which fails leaves on standard error. */
async function refusal(env: Record<string, string>): Promise<{ message: string; hint: string }> {
  const { status, stdout, stderr } = await runTensord(["serve"], env);
  expect(stdout).not.toContain('"ready on');
  expect(status).toBe(1);
  const [, message = "", hint = ""] = /^tensord: (Cannot .+)\nhint: (.+)\n$/.exec(stderr) ?? [];
  expect(message, `standard error is a sentence and a hint: ${stderr}`).not.toBe("");
  return { message, hint };
}

/** A temporary directory's path for a socket, gone when the test is over. */
class Folder implements Disposable {
  readonly path = join(tmpdir(), `tensord-${crypto.randomUUID().slice(0, 8)}`);

  constructor() {
    mkdirSync(this.path);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

testWith()("a second server on an instance names the first's pid, leaves, and disturbs nothing", async () => {
  await using server = await startServer();
  const region = await server.api.create({ name: "kept", byte_size: 1, ttl_ms: hour });
  const { message } = await refusal(server.env);
  expect(message).toBe(`Cannot use instance ${server.instance.name}: a server runs on it already, pid ${server.pid}`);
  expect((await server.api.get(region.id)).state).toBe("open");
  expect(exists(server.instance.socket)).toBeTrue();
});

testWith()("a TCP port in use is refused by name, and the socket goes again", async () => {
  await using first = await startServer({ env: { TENSORD_PORT: "0" } });
  const url = await first.readUrl();
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  await using second = new TestServer({ env: { TENSORD_PORT: new URL(url).port } });
  const { message, hint } = await refusal(second.env);
  expect(message).toBe(`Cannot listen on 127.0.0.1:${new URL(url).port}: the address is in use`);
  expect(hint).toContain("TENSORD_PORT");
  expect(exists(second.instance.socket)).toBeFalse();
});

testWith()("TCP refuses a Host that is not its own, so that a web page cannot rebind to it", async () => {
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  const url = await server.readUrl();
  const answer = await fetch(`${url}/v1/stats`, { headers: { host: "attacker.example" } });
  expect(answer.status).toBe(403);
  expect(await answer.json()).toMatchObject({ code: "forbidden" });
  expect((await fetch(`${url}/v1/stats`, { headers: { origin: "http://attacker.example" } })).status).toBe(403);
});

testWith()("the socket file of a killed server is replaced", async () => {
  await using server = await startServer();
  await server.kill("SIGKILL");
  const before = lstatSync(server.instance.socket, { bigint: true });
  await server.start();
  expect(lstatSync(server.instance.socket, { bigint: true }).ctimeNs).not.toBe(before.ctimeNs);
});

testWith()("a socket path that the kernel would cut is refused with its length", async () => {
  await using server = new TestServer({ env: { TENSORD_SOCKET: `/tmp/${"s".repeat(120)}` } });
  const { message, hint } = await refusal(server.env);
  expect(message).toContain("the path is 125 bytes, want at most 107");
  expect(hint).toContain("TENSORD_SOCKET");
});

testWith()("a socket on which somebody else listens is refused and left alone", async () => {
  using folder = new Folder();
  const path = join(folder.path, "other.sock");
  using _other = Bun.serve({ unix: path, fetch: () => new Response("other") });
  await using server = new TestServer({ env: { TENSORD_SOCKET: path } });
  const { message } = await refusal(server.env);
  expect(message).toBe(`Cannot listen on ${path}: another server listens there`);
  expect(await (await fetch("http://localhost/", { unix: path })).text()).toBe("other");
});

testWith()("a file that is no socket is refused and left alone", async () => {
  using folder = new Folder();
  const path = join(folder.path, "precious");
  writeFileSync(path, "precious");
  await using server = new TestServer({ env: { TENSORD_SOCKET: path } });
  const { message } = await refusal(server.env);
  expect(message).toBe(`Cannot listen on ${path}: a file that is no socket stands there`);
  expect(readFileSync(path, "utf8")).toBe("precious");
});

testWith()("an address that is not loopback is refused, and so is every other mistake, all at once", async () => {
  const instance = createInstance();
  const mistakes = { TENSORD_HOST: "0.0.0.0", TENSORD_PORT: "70000", TENSORD_SPEED: "11" };
  const { message } = await refusal({ TENSORD_INSTANCE: instance.name, ...mistakes });
  expect(message).toContain("TENSORD_HOST");
  expect(message).toContain("want a loopback address");
  expect(message).toContain("TENSORD_PORT");
  expect(message).toContain("TENSORD_SPEED is no setting");
  expect(listNames(instance)).toEqual([]);
});

testWith()("something that is no directory in the instance's place is refused and left alone", async () => {
  const instance = createInstance();
  const env = { TENSORD_INSTANCE: instance.name, TENSORD_PORT: "" };
  symlinkSync(tmpdir(), instance.directory);
  try {
    const { message, hint } = await refusal(env);
    expect(message).toMatch(/^Cannot open the directory .+: (ELOOP|ENOTDIR)$/);
    expect(hint).toContain("remove it");
    expect(lstatSync(instance.directory).isSymbolicLink()).toBeTrue();
  } finally {
    rmSync(instance.directory);
  }
});

testWith()("a shared memory directory that is not there is refused by name", async () => {
  const { message, hint } = await refusal({ TENSORD_SHM_DIR: "/nowhere/at/all", TENSORD_PORT: "" });
  expect(message).toBe("Cannot open the shared memory directory /nowhere/at/all: ENOENT");
  expect(hint).toContain("TENSORD_SHM_DIR");
});

testWith(needsRoot)(
  "a 64 MiB directory, as containers have it, carries small regions and answers 507 to a large one",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    const region = await server.api.create({ name: "small", byte_size: 8 * MiB, ttl_ms: hour });
    expect((await server.api.seal(region.id, { checksum: true })).state).toBe("sealed");
    const before = tmpfs.usedBytes;
    const problem = await server.api.problem("POST", "/v1/regions", { byte_size: 100_000_000, ttl_ms: hour });
    expect(problem).toMatchObject({ status: 507, code: "pool-full" });
    expect(problem.requested_bytes).toBeGreaterThanOrEqual(100_000_000);
    expect(problem.available_bytes).toBeGreaterThan(32 * MiB);
    expect(problem.hint).toContain("larger tmpfs");
    expect(tmpfs.usedBytes).toBe(before);
  },
);

testWith(needsRoot)(
  "a directory too small for the journal says which size decides, and leaves no page behind",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 4 * MiB });
    await using server = new TestServer({ shmDirectory: tmpfs.path });
    const { message, hint } = await refusal(server.env);
    expect(message).toContain(`90 % of the ${4 * MiB} bytes of the shared memory file system`);
    expect(hint).toContain("emptyDir");
    expect(tmpfs.usedBytes).toBeLessThan(MiB);
  },
);

testWith(needsRoot)(
  "a directory that others have filled to the last page is refused in words, and can be purged",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
    tmpfs.fill();
    await using server = new TestServer({ shmDirectory: tmpfs.path });
    const { message, hint } = await refusal(server.env);
    expect(message).toContain("no free page");
    expect(hint).toContain("foreign files");
  },
);

testWith(needsRoot)("a directory without a free inode is refused in words", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes: 64 });
  await using server = new TestServer({ shmDirectory: tmpfs.path });
  const giveBack = tmpfs.fillInodes();
  const { hint } = await refusal(server.env);
  expect(hint).toContain("inode");
  giveBack();
});

testWith(needsUserNamespaces)(
  "a host without inotify instances is no reason not to start: a GET still mends names",
  async () => {
    await using server = await startServer({ prefix: withoutInotify });
    server.log.expect(/watch/i, /^tensord\.region\.relinked$/);
    const region = await server.api.create({ name: "unwatched", byte_size: 1, ttl_ms: hour });
    rmSync(region.storage.path);
    expect((await server.api.get(region.id)).state).toBe("open");
    expect(exists(region.storage.path)).toBeTrue();
    await until("the log says so", () => server.log.find(/watch/i));
  },
);
