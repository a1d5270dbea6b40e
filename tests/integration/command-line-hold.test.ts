/** `tensord hold`: a command whose reader knows nothing of tensord keeps a region for as long as it runs, and no longer. */

import { afterAll, expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { Stats } from "../../src/server/cli/answers.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { needsPython, python, root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

const MiB = 2 ** 20;

/** Maps the file at its first argument, as an engine that loads a model by path, until its input ends. */
const stockReader = `
import mmap, sys
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(len(pages), flush=True)
sys.stdin.read()
`;

async function seal(server: TestServer, name: string, byteSize = 4096) {
  const { id } = await server.api.create({ name, byte_size: byteSize, persist: true, evictable: true });
  return await server.api.seal(id);
}

function start(server: TestServer, ...command: string[]) {
  const env = { PATH: process.env.PATH ?? "", TENSORD_URL: `unix://${server.instance.socket}` };
  return Bun.spawn([...command], { cwd: root, env, stdio: ["pipe", "pipe", "pipe"] });
}

const startHold = (server: TestServer, ...args: string[]) => start(server, ...tensord, "hold", ...args);

testWith()("hold gives a command the path, by {} and TENSORD_PATH, and ends with its status", async () => {
  await using server = await lendServer();
  const { id, storage } = await seal(server, "weights");
  const script = 'echo "$1 $TENSORD_PATH"; echo bad >&2; exit 7';
  const told = await server.command("hold", "weights", "--", "sh", "-c", script, "sh", "--model={}");
  expect(told).toEqual({ status: 7, stdout: `--model=${storage.path} ${storage.path}\n`, stderr: "bad\n" });
  expect((await server.command("hold", id, "--", "true")).status).toBe(0);
  expect((await server.command("hold", "weights", "--", "sh", "-c", "kill -9 $$")).status).toBe(137);
});

testWith()("what a command holds is in use until it ends, whatever becomes of the one that started it", async () => {
  await using server = await lendServer();
  const { id } = await seal(server, "weights");
  const isUsed = async () => (await server.api.get(id)).in_use;
  expect(await isUsed()).toBeFalse();
  await using holder = startHold(server, "weights", "--", "sh", "-c", "echo $$; exec sleep 1000");
  const { value } = await holder.stdout.getReader().read();
  expect(await isUsed()).toBeTrue();
  const child = Number(new TextDecoder().decode(value));
  holder.kill("SIGKILL");
  await holder.exited;
  expect(readFileSync(`/proc/${child}/cmdline`, "utf8")).toContain("sleep");
  expect(await isUsed()).toBeTrue();
  process.kill(child, "SIGKILL");
  await until("nobody uses it", async () => !(await isUsed()));
});

testWith()("hold passes signals on, and ends as the command does", async () => {
  // Its own: what is leased by request outlives the test.
  await using server = await startServer();
  await seal(server, "weights");
  for (const [signal, status] of [
    ["SIGTERM", 143],
    ["SIGINT", 130],
    ["SIGUSR1", 138],
  ] as const) {
    await using holder = startHold(server, "weights", "--", "sh", "-c", "echo ready; exec sleep 1000");
    await holder.stdout.getReader().read();
    holder.kill(signal);
    expect(await holder.exited).toBe(status);
  }
});

testWith()("hold says what cannot be held, and what cannot be run", async () => {
  await using server = await lendServer();
  await seal(server, "weights");
  await server.api.create({ name: "unnamed", byte_size: 1, persist: true, storage: "memfd" });
  const unnamed = await server.command("hold", "unnamed", "--", "true");
  expect(unnamed).toEqual({
    status: 1,
    stdout: "",
    stderr:
      "tensord: Cannot hold unnamed: in memfd storage it has no path that a command could open\n" +
      "hint: Copy it into a region that has one, `tensord copy unnamed NAME --storage shm`, and hold that.\n",
  });
  expect((await server.command("hold", "nobody", "--", "true")).stderr).toContain("nobody");
  const { status, stderr } = await server.command("hold", "weights", "--", "no-such-program");
  expect([status, stderr]).toEqual([1, expect.stringContaining('Cannot run "no-such-program": ENOENT')]);
  expect((await server.command("hold", "weights")).stderr).toContain("missing required argument 'command'");
});

testWith(needsPython)(
  "a model that a stock reader maps survives a pool that needs room under hold; without it, it goes",
  async () => {
    const roomBytes = 64 * MiB;
    await using server = await startServer({ env: { TENSORD_MEMORY_LIMIT_BYTES: String(roomBytes) } });
    const [held, bare] = [await seal(server, "held", 4 * MiB), await seal(server, "bare", 4 * MiB)];
    const reader = [python ?? "", "-c", stockReader];
    await using holder = startHold(server, "held", "--", ...reader, "{}");
    await using without = start(server, ...reader, bare.storage.path);
    for (const { stdout } of [holder, without]) expect((await stdout.getReader().read()).done).toBeFalse();
    const free = hostOf(await server.api.call<Stats>("GET", "/v1/stats")).available_bytes;
    // What was handed out stays for 10 s: the creation waits for that.
    const body = { byte_size: free + MiB, persist: true, name: "new", on_full: "wait", deadline_ms: 60_000 } as const;
    await server.api.create(body);
    expect((await server.api.list()).map(({ name }) => name)).toEqual(["held", "new"]);
    expect([held, bare].map(({ storage }) => existsSync(storage.path))).toEqual([true, false]);
    expect((await server.api.get(held.id)).in_use).toBeTrue();
  },
);
