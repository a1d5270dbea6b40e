/** `tensord pools` and `tensord pool` against a real server on a stand-in driver: what they make, print, and say of what fails. */

import { afterAll, expect } from "bun:test";
import type { ElasticPoolDetail, Operation } from "../../src/server/cli/answers.ts";
import { toLine } from "../../src/server/cli/events.ts";
import type { Event } from "../../src/server/cli/follow.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { connect } from "../harness/device-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const test = testWith(needsStandIn);
const device = standInUuid(0);
const MiB = 2 ** 20;

test("a pool is made, mapped, shown, compacted, trimmed and deleted, each with what came of it", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const run = async (...words: string[]) => (await server.command(...words)).stdout;
  const pool = (action: string, ...options: string[]) => run("pool", action, "default", device, ...options);
  expect(await run("pools")).toBe("no elastic pools\n");
  const made = await pool("create", "--capacity", "32MiB", "--page-size", "2MiB", "--maximum", "16MiB");
  expect(made).toMatch(new RegExp(`MODEL .*\\ndefault  ${device}  32 MiB  2 MiB  0 B .* 16 MiB`));
  expect(await pool("map", "--size", "4MiB", "--offset", "2MiB")).toBe("mapped 4 MiB at 2097152, pages from 1\n");
  expect(await pool("map", "--size", "2MiB", "--evictable")).toBe("mapped 2 MiB at 0, pages from 3\n");
  expect(await pool("unmap", "--offset", "0B", "--size", "2MiB")).toBe("unmapped 2 MiB\n");
  expect(await pool("compact")).toBe("4 MiB moved, in 1 pieces\n");
  const shown = await pool("show");
  expect(shown).toMatch(/OFFSET .*\n0 +4 MiB +1 +mapped +no +-/);
  const asJson = JSON.parse(await pool("change", "--maximum", "none", "--json")) as ElasticPoolDetail;
  expect(asJson).toMatchObject({ maximum_bytes: null, mapped_bytes: 4 * MiB });
  const listed = JSON.parse(await run("pools", "--model", "default", "--json")) as ElasticPoolDetail[];
  expect(listed).toMatchObject([{ model: "default", device_uuid: device, run_count: 1 }]);
  expect(await pool("trim")).toBe("4 MiB freed\n");
  expect(await pool("delete")).toBe("deleted, 0 B freed\n");
});

test("an unmap waits for workers unless it is told not to, and show names who has the pages", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const pool = (...words: string[]) => server.command("pool", ...words);
  const where = ["default", device] as const;
  await pool("create", ...where, "--capacity", "32MiB", "--page-size", "2MiB");
  await pool("map", ...where, "--size", "2MiB");
  using worker = await connect(server);
  const { reply } = await worker.ok("pool", { device_uuid: device, moves: true });
  await worker.ok("take", { pool: reply.pool, pages: [[1, 1]] });
  const begun = await pool("unmap", ...where, "--offset", "0B", "--size", "2MiB", "--no-wait");
  expect(begun.stdout).toMatch(/^op_[a-z2-7]+: 2 MiB go once every worker has let go/);
  expect((await pool("show", ...where)).stdout).toMatch(/SLOT .*\n0 +- +2 MiB +yes +yes /);
  const again = await pool("unmap", ...where, "--offset", "0B", "--size", "2MiB");
  expect(again).toMatchObject({ status: 1, stderr: expect.stringContaining("or it leaves already") });
  await worker.ok("let_go", { pool: reply.pool, pages: [[1, 1]], sequence: "0" });
  const [id = ""] = begun.stdout.split(":");
  await until("the unmap has succeeded", async () => {
    return (await server.api.call<Operation>("GET", `/v1/operations/${id}`)).state === "succeeded";
  });
});

test("an option that an action does not take, or lacks, is refused before anything is asked", async () => {
  await using server = await startServer();
  for (const [words, said] of [
    [
      ["show", "default", device, "--size", "2MiB"],
      "Cannot show an elastic pool: --size is not for that, want no option",
    ],
    [["map", "default", device, "--capacity", "2MiB"], "--capacity is not for that, want --size, --offset, --session"],
    [["trim", "default", device, "--no-wait"], "--no-wait is not for that"],
    [["create", "default", device], "Cannot create: --capacity is missing, want it as 1GiB"],
    [["unmap", "default", device, "--size", "2MiB"], "Cannot unmap: --offset is missing"],
    [["shrink", "default", device], "Allowed choices are create, show"],
  ] as const) {
    const { status, stderr } = await server.command("pool", ...words);
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining(said) });
  }
});

testWith()("events has a line for pages: which pool, how much, and why", async () => {
  const data = { model: "llama", device_uuid: device, runs: [{ byte_size: 2 * MiB }], reason: "evicted" };
  const event = { id: "1", time: "now", type: "tensord.vmm.unmapped", subject: "vmm_a", data };
  expect(toLine(event as unknown as Event)).toBe(
    `now  vmm.unmapped        vmm_a  llama on ${device}  2 MiB  reason evicted`,
  );
});
