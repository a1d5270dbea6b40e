/** `tensord free` against a real server: what goes, what stays and why, and what it says when that is not enough. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

const MiB = 2 ** 20;
async function createSealed(server: TestServer, name: string, evictable: boolean, model = "default") {
  const byte_size = MiB - 4096;
  const region = await server.api.create({ model, name, byte_size, persist: true, evictable });
  return await server.api.seal(region.id);
}

testWith(needsPython)(
  "free takes the least recently used first and no more than it must, and leaves what is mapped, open or not evictable",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const [first, mapped, second] = [
      await createSealed(server, "first", true),
      await createSealed(server, "mapped", true),
      await createSealed(server, "second", true),
    ];
    await createSealed(server, "precious", false);
    await server.api.create({ name: "open", byte_size: MiB - 4096, persist: true, evictable: true });
    await worker.attach("r", mapped);
    await server.api.call("POST", "/v1/models", { name: "llama", memory_limit_bytes: 1.5 * MiB });
    const old = await createSealed(server, "old", true, "llama");

    const early = await server.command("free", "1MiB");
    expect(early.status).toBe(1);
    expect(early.stdout).toStartWith("freed 0 B of the 1 MiB asked for, 0 regions\n\nstays\nREGION ");
    expect(early.stdout).toMatch(/ first +1 MiB +somebody asked for it a moment ago$/m);
    expect(early.stdout).toMatch(/ mapped +1 MiB +somebody maps it$/m);
    expect(early.stdout).toContain("\n\nOnly sealed regions go that are evictable");

    // What was handed out stays for 10 s.
    await until(
      "they may go",
      async () =>
        (await server.api.call<{ enough: boolean }>("POST", "/v1/evict", { bytes: 3 * MiB, dry_run: true })).enough,
    );
    const alloc = ["alloc", "new", "--model", "llama", "--size", "1020KiB", "--ttl", "1h"];
    expect((await server.command(...alloc)).stderr).toContain("--on-full evict or wait");
    expect((await server.command(...alloc, "--on-full", "evict")).stdout).toStartWith("allocated llama/new, open, ");
    expect(await server.api.find(old.id)).toBeUndefined();

    const dry = await server.command("free", "1GiB", "--dry-run");
    expect(dry.status).toBe(1);
    expect(dry.stdout).toStartWith("would free 2 MiB of the 1 GiB asked for, 2 regions\n\nREGION ");
    expect(dry.stdout).toMatch(new RegExp(`^${first.id} +default +first +1 MiB +\\d+ s ago\n${second.id} `, "m"));
    expect(dry.stdout).toContain("\n\nwould stay\nREGION ");
    expect(dry.stdout).not.toContain("precious");

    const freed = await server.command("free", "1000000");
    expect(freed.status).toBe(0);
    expect(freed.stdout).toStartWith("freed 1 MiB of the 977 KiB asked for, 1 region\n");
    expect(freed.stdout).toMatch(/ second +1 MiB +not needed$/m);
    const left = async () =>
      (await server.api.list()).filter(({ model }) => model === "default").map(({ name }) => name);
    expect(await left()).toEqual(["mapped", "second", "precious", "open"]);

    const json = await server.command("free", "1GiB", "--json");
    expect(json.status).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({
      dry_run: false,
      enough: false,
      freed_bytes: MiB,
      evicted: [{ region: second.id, name: "second" }],
    });
    expect(await left()).toEqual(["mapped", "precious", "open"]);
  },
);

testWith()("free --model leaves other models alone, and refuses what it cannot read", async () => {
  await using server = await startServer();
  await server.api.call("POST", "/v1/models", { name: "llama" });
  await createSealed(server, "other", true);
  const json = async () =>
    JSON.parse((await server.command("free", "1MiB", "--model", "llama", "--json")).stdout) as { kept: unknown[] };
  expect((await json()).kept).toEqual([]);
  await createSealed(server, "own", true, "llama");
  expect((await json()).kept).toMatchObject([{ name: "own", model: "llama", reason: "handed-out" }]);
  for (const [args, says] of [
    [["lots"], 'Cannot read <size> "lots": it is no number with a unit'],
    [["1.5GiB"], "it is no number with a unit"],
    [["1GiB", "--model", "nobody"], 'Cannot find model "nobody"'],
    [[], "missing required argument 'size'"],
  ] as const) {
    const { status, stdout, stderr } = await server.command("free", ...args);
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(says);
  }
});
