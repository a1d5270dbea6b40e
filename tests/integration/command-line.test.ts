/** `tensord status | ls | rm | purge` against a real server: what they print, to people and to programs, and how they fail. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft, listNames } from "../harness/instance.ts";
import { exists } from "../harness/instance-content.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { startServer, TestServer } from "../harness/server.ts";
import type { Region, Stats } from "../harness/server-api.ts";
import { runTensord } from "../harness/server-command.ts";
import { WorkerProcess } from "../harness/worker.ts";

const hour = 3_600_000;

afterAll(assertNothingLeft);

/** A server with one sealed region of a model and one open region without a name. */
async function startFilled() {
  const server = await startServer();
  await server.api.call("POST", "/v1/models", { name: "llama", memory_limit_bytes: 2 ** 24 });
  const weights = await server.api.create({ model: "llama", name: "weights", byte_size: 2 ** 20, persist: true });
  await server.api.seal(weights.id);
  const scratch = await server.api.create({ byte_size: 1000, ttl_ms: hour, labels: { job: "nightly" } });
  return { server, weights, scratch };
}

testWith()("status tells the books in words, and with --json in the numbers of /v1/stats", async () => {
  const { server } = await startFilled();
  await using _ = server;
  const { status, stdout, stderr } = await server.command("status");
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toContain(`instance   ${server.instance.name}, tensord `);
  expect(stdout).toContain("regions    1 sealed, 1 open, 0 in creation");
  expect(stdout).toMatch(/^llama +1 +1(\.0)?\d* MiB +0 B +16 MiB$/m);
  const json = JSON.parse((await server.command("status", "--json")).stdout) as Stats & { model_list: unknown[] };
  expect(json).toMatchObject({ instance: server.instance.name, regions: { open: 1, sealed: 1, draining: 0 } });
  expect(json.model_list).toHaveLength(2);
});

testWith()("leases lists a region's leases by request, by its name or id", async () => {
  const { server, weights, scratch } = await startFilled();
  await using _ = server;
  const { id } = await server.api.call<{ id: string }>("POST", `/v1/regions/${weights.id}/leases`, { ttl_ms: hour });
  for (const target of ["llama/weights", weights.id]) {
    const { status, stdout } = await server.command("leases", target);
    expect([status, stdout]).toEqual([
      0,
      expect.stringMatching(new RegExp(`^LEASE +SESSION +TTL +ENDS\\n${id} +- +60 min +in `)),
    ]);
  }
  const json = JSON.parse((await server.command("leases", weights.id, "--json")).stdout);
  expect(json).toMatchObject([{ id, region: weights.id, session: null, ttl_ms: hour }]);
  expect((await server.command("leases", scratch.id)).stdout).toBe("no leases by request\n");
  expect((await server.command("leases", "a/b/c")).stderr).toContain("want a region's id, name or model/name");
});

testWith()("ls lists regions, filters them, and prints descriptors with --json", async () => {
  const { server, weights, scratch } = await startFilled();
  await using _ = server;
  const { status, stdout } = await server.command("ls");
  expect(status).toBe(0);
  expect(stdout).toMatch(/^REGION +MODEL +NAME +STATE +SIZE +TENSORS +OWNER +CREATED +USED$/m);
  expect(stdout).toMatch(
    new RegExp(`^${weights.id} +llama +weights +sealed +1(\\.0)?\\d* MiB +1 +persist +\\d+ s ago +\\d+ s ago$`, "m"),
  );
  expect(stdout).toMatch(new RegExp(`^${scratch.id} +default +- +open .* ttl, \\d+ (s|min) left`, "m"));
  const ids = async (...filter: string[]) =>
    (JSON.parse((await server.command("ls", "--json", ...filter)).stdout) as Region[]).map(({ id }) => id);
  expect(await ids()).toEqual([weights.id, scratch.id]);
  expect(await ids("--model", "llama")).toEqual([weights.id]);
  expect(await ids("--state", "open")).toEqual([scratch.id]);
  expect(await ids("--label", "job=nightly")).toEqual([scratch.id]);
  expect(await ids("--label", "job=daily")).toEqual([]);
  expect((await server.command("ls", "--label", "job=daily")).stdout).toBe("no regions\n");
});

testWith()("ls sorts by size, age, name or use", async () => {
  await using server = await startServer();
  for (const [name, byte_size] of [
    ["b", 4],
    ["c", 9000],
    ["a", 5000],
  ] as const) {
    await server.api.create({ name, byte_size, persist: true });
  }
  await server.api.create({ byte_size: 20_000, ttl_ms: hour });
  const names = async (...sort: string[]) =>
    (JSON.parse((await server.command("ls", "--json", ...sort)).stdout) as Region[]).map(({ name }) => name);
  expect(await names()).toEqual(["b", "c", "a", null]);
  expect(await names("--sort", "age")).toEqual(["b", "c", "a", null]);
  expect(await names("--sort", "size")).toEqual([null, "c", "a", "b"]);
  expect(await names("--sort", "name")).toEqual(["a", "b", "c", null]);
  await server.api.findByName("b");
  expect(await names("--sort", "used")).toEqual(["c", "a", null, "b"]);
  const { status, stderr } = await server.command("ls", "--sort", "weight");
  expect(status).toBe(1);
  expect(stderr).toContain("Allowed choices are size, age, used, name");
});

testWith()("rm deletes by model/name and by id, and says what it freed", async () => {
  const { server, weights, scratch } = await startFilled();
  await using _ = server;
  const { status, stdout } = await server.command("rm", "llama/weights");
  expect(status).toBe(0);
  expect(stdout).toMatch(/^llama\/weights: deleted, 1(\.0)?\d* MiB freed\n$/);
  expect(await server.api.find(weights.id)).toBeUndefined();
  const json = await server.command("rm", "--json", scratch.id);
  expect(JSON.parse(json.stdout)).toEqual([{ region: scratch.id, state: "deleted", freed_bytes: 8192 }]);
});

testWith()("rm goes on after a region that it cannot find, and fails at the end with its name", async () => {
  const { server, weights, scratch } = await startFilled();
  await using _ = server;
  const { status, stdout, stderr } = await server.command("rm", "missing", "llama/weights", scratch.id);
  expect(status).toBe(1);
  expect(stdout).toContain("llama/weights: deleted");
  expect(stdout).toContain(`${scratch.id}: deleted`);
  expect(stderr).toContain('tensord: Cannot find region "missing" of model "default"');
  expect(stderr).toContain("hint: ");
  expect(await server.api.find(weights.id)).toBeUndefined();
});

testWith(needsPython)("rm of a mapped region says that its bytes are still there", async () => {
  const { server, weights } = await startFilled();
  await using _ = server;
  await using worker = new WorkerProcess();
  await worker.attach("r", weights);
  const { stdout } = await server.command("rm", weights.id);
  expect(stdout).toBe(
    `${weights.id}: draining, a process still maps it; its bytes go with the last one (--wait waits for them)\n`,
  );
});

testWith()("purge refuses while the server runs, and names it", async () => {
  const { server, weights } = await startFilled();
  await using _ = server;
  const { status, stderr } = await server.command("purge");
  expect(status).toBe(1);
  expect(stderr).toContain(`a server runs on it already, pid ${server.pid}`);
  expect(exists(weights.storage.path)).toBeTrue();
});

testWith(needsPython)(
  "purge removes everything of a stopped instance, what is mapped too, and --dry-run only says so",
  async () => {
    const { server, weights } = await startFilled();
    await using _ = server;
    await using worker = new WorkerProcess();
    await worker.attach("r", weights);
    const digest = await worker.digest("r");
    await server.kill("SIGKILL");
    const before = listNames(server.instance);
    const dry = await server.command("purge", "--dry-run");
    expect(dry.stdout).toMatch(/^would purge 2 regions, .+; 1 of them are still mapped/);
    expect(listNames(server.instance)).toEqual(before);
    const json = JSON.parse((await server.command("purge", "--json")).stdout) as Record<string, unknown>;
    expect(json).toMatchObject({ regions: 2, leased: 1, dry_run: false });
    expect(listNames(server.instance)).toEqual([]);
    expect(await worker.digest("r")).toBe(digest);
    const again = JSON.parse((await server.command("purge", "--json")).stdout) as Record<string, unknown>;
    expect(again).toEqual({ regions: 0, freed_bytes: 0, leased: 0, dry_run: false });
    expect(Object.keys(again)).toEqual(Object.keys(json));
  },
);

testWith()("every command that needs a server says how to get one when there is none", async () => {
  await using server = new TestServer();
  for (const args of [
    ["status"],
    ["status", "--json"],
    ["ls"],
    ["free", "1GiB"],
    ["rm", "weights"],
    ["leases", "weights"],
    ["copy", "weights", "--ttl", "1h"],
    ["operations"],
  ]) {
    const { status, stdout, stderr } = await server.command(...args);
    expect([status, stdout], args.join(" ")).toEqual([1, ""]);
    expect(stderr).toContain(`tensord: Cannot reach a server at unix://${server.instance.socket}: `);
    expect(stderr).toContain("hint: Start one with `tensord serve`");
  }
  const { status, stdout } = await server.command("purge");
  expect([status, stdout]).toEqual([0, `nothing to purge: ${server.instance.directory} is not there\n`]);
});

testWith()("TENSORD_URL and --url lead to a server over TCP", async () => {
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  const url = await server.readUrl();
  const elsewhere = { TENSORD_INSTANCE: "nobody-is-here" };
  const json = async (args: string[], env: Record<string, string>) =>
    JSON.parse((await runTensord(["status", "--json", ...args], { ...elsewhere, ...env })).stdout) as Stats;
  expect((await json([], { TENSORD_URL: url })).instance).toBe(server.instance.name);
  expect((await json(["--url", `unix://${server.instance.socket}`], {})).instance).toBe(server.instance.name);
});
