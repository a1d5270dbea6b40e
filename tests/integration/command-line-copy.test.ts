/** `tensord copy` and `tensord operations` against a real server: what they make, print, and say of what fails. */

import { afterAll, expect, test } from "bun:test";
import type { Operation } from "../../src/server/cli/answers.ts";
import { toLine } from "../../src/server/cli/events.ts";
import type { Event } from "../../src/server/cli/follow.ts";
import { toOperationRow, toProgress } from "../../src/server/cli/operation-text.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { startServer } from "../harness/server.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

const operation: Operation = {
  id: `op_${"a".repeat(26)}`,
  kind: "copy",
  state: "running",
  model: "default",
  created_by: null,
  key: null,
  source: `reg_${"a".repeat(26)}`,
  done_bytes: 512,
  total_bytes: 1024,
  mode: null,
  reason: null,
  region: null,
  problem: null,
  started_at: new Date().toISOString(),
  ended_at: null,
};

test("a bar fills by the bytes that are done, and nothing to do is all done", () => {
  expect(toProgress(operation)).toBe("[############............] 50 %, 512 B of 1 KiB");
  expect(toProgress({ ...operation, done_bytes: 1024 })).toContain("[########################] 100 %");
  expect(toProgress({ ...operation, done_bytes: 0, total_bytes: 0 })).toContain("100 %");
});

test("an operation's row, and its event's line, say what became of it", () => {
  const problem = { type: "", title: "", status: 409, detail: "Cannot", code: "name-taken" };
  expect(toOperationRow({ ...operation, state: "failed", problem })).toContain("failed: name-taken");
  const event = { id: "1", time: "now", type: "tensord.operation.finished", subject: operation.id };
  const data = { ...operation, state: "failed", problem };
  expect(toLine({ ...event, data } as unknown as Event)).toContain("failed  512 B of 1 KiB  name-taken");
});

testWith()("copy makes a sealed region, and says what it is; operations has it", async () => {
  await using server = await lendServer();
  const source = await server.api.create({ name: "weights", byte_size: 100_000, persist: true });
  await server.api.seal(source.id);
  const { stdout } = await server.command("copy", "weights", "copied", "--storage", "memfd", "--ttl", "1h");
  const made = await server.api.findByName("copied");
  expect(stdout).toStartWith("copied weights to default/copied, sealed, memfd, ");
  expect(stdout).toContain(`id      ${made?.id}\n  remove  tensord rm copied`);
  expect(made).toMatchObject({ state: "sealed", storage: { kind: "memfd" } });
  const asJson = JSON.parse((await server.command("copy", source.id, "--ttl", "1h", "--json")).stdout) as Operation;
  expect(asJson).toMatchObject({ state: "succeeded", source: source.id });
  const begun = await server.command("copy", "weights", "--ttl", "1h", "--no-wait");
  expect(begun.stdout).toMatch(/^(op_[a-z2-7]+ has begun|copied weights to )/);
  const { stdout: listed } = await server.command("operations");
  expect(listed).toStartWith("OPERATION");
  expect(listed).toContain(asJson.id);
  expect((await server.command("operations", "--state", "failed")).stdout).toBe("no operations\n");
  const cancelled = await server.command("operations", "--cancel", asJson.id);
  expect(cancelled.stdout).toContain("succeeded");
});

testWith()("copy says what is wrong: no owner, no region, a name that is taken", async () => {
  await using server = await lendServer();
  const { id } = await server.api.create({ name: "weights", byte_size: 1, persist: true });
  expect((await server.command("copy", "weights")).stderr).toContain("Cannot copy weights: it has no owner");
  expect((await server.command("copy", "weights", "--ttl", "1h")).stderr).toContain("want sealed");
  await server.api.seal(id);
  const { stderr, status } = await server.command("copy", "weights", "weights", "--ttl", "1h");
  expect([status, stderr.split("\n")[1]]).toEqual([
    1,
    "hint: Remove that region with `tensord rm`, choose another name, or say --if-exists attach or replace.",
  ]);
  expect((await server.command("copy", "nobody", "--ttl", "1h")).stderr).toContain("nobody");
  expect((await server.command("operations", "--cancel", "op_a")).stderr).toContain('Cannot find operation "op_a"');
});

testWith(needsStandIn)(
  "copy goes to a device, and one that is cancelled meanwhile says so, on the stand-in driver",
  async () => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    const source = await server.api.create({ name: "weights", byte_size: 100_000, persist: true });
    await server.api.seal(source.id);
    const device = standInUuid(0);
    const { stdout } = await server.command("copy", "weights", "on-device", "--device", device, "--persist");
    expect(stdout).toStartWith(`copied weights to default/on-device, sealed, cuda_vmm on ${device}, `);
    cuda.order("cuEventSynchronize 1 hang");
    const running = server.command("copy", "weights", "--device", device, "--ttl", "1h");
    await until("the copy hangs", () => cuda.wasOrdered("cuEventSynchronize"));
    const { items } = await server.api.call<{ items: Operation[] }>("GET", "/v1/operations?state=running");
    await server.command("operations", "--cancel", items[0]?.id as string);
    const { stderr, status } = await running;
    expect([status, stderr.split("\n")[0]]).toEqual([1, `tensord: Cannot finish ${items[0]?.id}: it was cancelled`]);
  },
);

testWith(needsStandIn)("Ctrl-C cancels a copy, and leaves nothing of it, on the stand-in driver", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const source = await server.api.create({ name: "weights", byte_size: 100_000, persist: true });
  await server.api.seal(source.id);
  cuda.order("cuEventSynchronize 1 hang");
  const args = ["copy", "weights", "--device", standInUuid(0), "--ttl", "1h"];
  const env = { ...process.env, TENSORD_URL: `unix://${server.instance.socket}` };
  const command = Bun.spawn([...tensord, ...args], { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  await until("the copy hangs", () => cuda.wasOrdered("cuEventSynchronize"));
  command.kill("SIGINT");
  expect(await command.exited).toBe(1);
  expect(await new Response(command.stderr).text()).toContain("it was cancelled");
  expect((await server.api.list()).map(({ id }) => id)).toEqual([source.id]);
});
