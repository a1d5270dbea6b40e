/** `tensord pools` and `tensord pool` against a real server on a stand-in driver: what they make, print, and say of what fails. */

import { afterAll, expect } from "bun:test";
import type { ElasticPoolDetail, Operation } from "../../src/server/cli/answers.ts";
import { Api } from "../../src/server/cli/api.ts";
import { type PoolAction, type PoolOptions, pool, pools } from "../../src/server/cli/elastic.ts";
import { toLine } from "../../src/server/cli/events.ts";
import type { Event } from "../../src/server/cli/follow.ts";
import { parseConfig } from "../../src/server/config.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { connect } from "../harness/device-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const test = testWith(needsStandIn);
const device = standInUuid(0);
const MiB = 2 ** 20;

const where = { model: "default", device };

/** What the commands say, by calls of this process: each of its own would take its time. */
function open(server: TestServer) {
  const api = new Api(parseConfig({}, {}, {}), `unix://${server.instance.socket}`);
  return {
    pool: (action: PoolAction, options: Partial<PoolOptions> = {}, asJson = false) =>
      pool(api, action, where, { wait: true, ...options }, asJson),
    pools: (options = {}, asJson = false) => pools(api, options, asJson),
  };
}

test("a pool is made, mapped, shown, compacted, trimmed and deleted, each with what came of it", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const { pool, pools } = open(server);
  expect(await pools()).toBe("no elastic pools");
  const sizes = ["--capacity", "32MiB", "--page-size", "2MiB", "--maximum", "16MiB"];
  const { stdout: made } = await server.command("pool", "create", "default", device, ...sizes);
  expect(made).toMatch(new RegExp(`MODEL .*\\ndefault  ${device}  32 MiB  2 MiB  0 B .* 16 MiB`));
  expect(await pool("map", { size: "4MiB", offset: "2MiB" })).toBe("mapped 4 MiB at 2097152, pages from 1");
  expect(await pool("map", { size: "2MiB", evictable: true })).toBe("mapped 2 MiB at 0, pages from 3");
  expect(await pool("unmap", { offset: "0B", size: "2MiB" })).toBe("unmapped 2 MiB");
  expect(await pool("compact")).toBe("4 MiB moved, in 1 pieces");
  expect(await pool("compact")).toBe("nothing to move");
  expect(await pool("show")).toMatch(/OFFSET .*\n0 +4 MiB +1 +mapped +no +-/);
  const asJson = JSON.parse(await pool("change", { maximum: "none" }, true)) as ElasticPoolDetail;
  expect(asJson).toMatchObject({ maximum_bytes: null, mapped_bytes: 4 * MiB });
  const listed = JSON.parse(await pools({ model: "default" }, true)) as ElasticPoolDetail[];
  expect(listed).toMatchObject([{ model: "default", device_uuid: device, run_count: 1 }]);
  expect((await server.command("pools")).stdout).toMatch(new RegExp(`default  ${device} .* 4 MiB`));
  expect(await pool("trim")).toBe("4 MiB freed");
  expect(await pool("delete")).toBe("deleted, 0 B freed");
});

test("an unmap waits for workers unless it is told not to, and show names who has the pages", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const { pool } = open(server);
  await pool("create", { capacity: "32MiB", pageSize: "2MiB" });
  await pool("map", { size: "2MiB" });
  using worker = await connect(server);
  const { reply } = await worker.ok("pool", { device_uuid: device, moves: true });
  await worker.ok("take", { pool: reply.pool, pages: [[1, 1]] });
  const asked = { offset: "0B", size: "2MiB" };
  const begun = await pool("unmap", { ...asked, wait: false });
  expect(begun).toMatch(/^op_[a-z2-7]+: 2 MiB go once every worker has let go/);
  expect(await pool("show")).toMatch(/SLOT .*\n0 +- +2 MiB +yes +yes /);
  await expect(pool("unmap", asked)).rejects.toThrow("or it leaves already");
  await worker.ok("let_go", { pool: reply.pool, pages: [[1, 1]], sequence: "0" });
  const [id = ""] = begun.split(":");
  await until("the unmap has succeeded", async () => {
    return (await server.api.call<Operation>("GET", `/v1/operations/${id}`)).state === "succeeded";
  });
});

testWith()("an option that an action does not take, or lacks, is refused before anything is asked", async () => {
  // Nobody listens there.
  const api = new Api(parseConfig({}, {}, {}), "unix:///nowhere.sock");
  const refused = [
    ["show", { size: "2MiB" }, "Cannot show an elastic pool: --size is not for that, want no option"],
    ["map", { capacity: "2MiB" }, "--capacity is not for that, want --size, --offset, --session"],
    ["trim", { wait: false }, "--no-wait is not for that"],
    ["create", {}, "Cannot create: --capacity is missing, want it as 1GiB"],
    ["unmap", { size: "2MiB" }, "Cannot unmap: --offset is missing"],
  ] as const;
  for (const [action, options, said] of refused) {
    await expect(pool(api, action, where, { wait: true, ...options }, false)).rejects.toThrow(said);
  }
});

testWith()("events has a line for pages: which pool, how much, and why", async () => {
  const data = { model: "llama", device_uuid: device, runs: [{ byte_size: 2 * MiB }], reason: "evicted" };
  const event = { id: "1", time: "now", type: "tensord.vmm.unmapped", subject: "vmm_a", data };
  expect(toLine(event as unknown as Event)).toBe(
    `now  vmm.unmapped        vmm_a  llama on ${device}  2 MiB  reason evicted`,
  );
});
