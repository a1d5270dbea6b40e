/**
 * What does an elastic pool cost in Python beside the driver's own calls? Map and unmap of one page and of a run, the
 * reservation of 128 GiB, and the attachment of a pool of 2,048 pages, over that many descriptors imported and mapped bare. On the
 * stand-in for a driver, whose ratios say what is ours; with BENCH_CARD=1 on the machine's own, and then its times count.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { round } from "./lib/machine.ts";
import { bun, repository } from "./lib/places.ts";
import { runPython } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { BenchServer } from "./lib/server.ts";
import { type Summary, summarize } from "./lib/statistics.ts";

const pages = Number(process.env.BENCH_PAGES ?? 2048);
const pageSize = 2 * 2 ** 20;
/** Pages of one request. */
const step = 256;
const isCard = process.env.BENCH_CARD === "1";

/** A stand-in with one card, and the environment that leads to it. */
function makeStandIn(folder: string): Record<string, string> {
  const built = Bun.spawnSync([bun, "tests/cuda/build.mjs"], { cwd: repository });
  if (built.exitCode !== 0) throw new Error(`the stand-in driver: ${built.stdout}${built.stderr}`);
  const device = `device GPU-57a4d000-0000-4000-8000-000000000000 ${4 * pages * pageSize}`;
  writeFileSync(join(folder, "settings"), `driver 13000\n${device}\n`);
  return { LD_LIBRARY_PATH: built.stdout.toString().trim(), STAND_IN_CUDA_DIR: folder };
}

/** The UUID of the server's first device, once its driver has told. */
async function findDevice(server: BenchServer): Promise<string> {
  const deadline = performance.now() + 30_000;
  while (performance.now() < deadline) {
    const { items } = await server.call<{ items: { uuid: string }[] }>("GET", "/v1/devices");
    if (items[0] !== undefined) return items[0].uuid;
    await Bun.sleep(50);
  }
  throw new Error("the server has no device");
}

const folder = mkdtempSync(join(tmpdir(), "tensord-bench-cuda-"));
try {
  const environment = isCard ? {} : makeStandIn(folder);
  // Before the server has pages: the stand-in looks at each one that is there whenever one is made.
  const calls = await runPython<Record<string, number[]>>("elastic_pool.py", ["calls"], [], environment);
  await using server = await BenchServer.start({ settings: { TENSORD_RESERVE_BYTES: "0", ...environment } });
  const path = `/v1/models/default/vmm/${await findDevice(server)}`;
  await server.call("PUT", path, { virtual_capacity: 2 * pages * pageSize, page_size: pageSize });
  for (let mapped = 0; mapped < pages; mapped += step) {
    await server.call("POST", `${path}/map`, { byte_size: Math.min(step, pages - mapped) * pageSize });
  }
  const args = ["attach", `unix://${server.socket}`, String(pages)];
  const attachment = await runPython<Record<string, number[]>>("elastic_pool.py", args, [server.pid], environment);
  const timings = { ...calls, ...attachment };
  const details: Record<string, Summary> = {};
  for (const [what, us] of Object.entries(timings)) details[what] = summarize(us);
  const p50 = (what: string) => details[what]?.p50 ?? Number.NaN;
  const over = (what: string, name: string) => {
    say(`${what}: ${round(p50(name), 1)} µs over ${round(p50(`bare_${name}`), 1)} µs`);
    return { what: `${what}, over the driver's calls`, ratio: p50(name) / p50(`bare_${name}`) };
  };
  report({
    benchmark: "elastic-pool",
    question: "an elastic pool in Python, over the driver's own calls",
    ratios: [
      over("map one page", "map_page"),
      over("unmap one page", "unmap_page"),
      over("map 16 pages", "map_run"),
      over("unmap 16 pages", "unmap_run"),
      over("reserve 128 GiB", "reserve"),
      over(`attach a pool of ${pages} pages`, "attach"),
    ],
    details: { unit: "µs", driver: isCard ? "the machine's" : "the stand-in", times: details },
  });
} finally {
  rmSync(folder, { recursive: true });
}
