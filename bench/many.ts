/**
 * How long is the event loop held at a time by pages of 1,000 regions and leases, and by a region of 100,000 tensors: made,
 * read, sealed, asked for one tensor, deleted? And how long does a start take that finds such regions?
 */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { LongestGap } from "./lib/loop-probe.ts";
import { round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { BenchServer } from "./lib/server.ts";
import { median } from "./lib/statistics.ts";

const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const pages = 200;
const targetMs = 2;
const hour = 3_600_000;

interface Phase extends LongestGap {
  readonly ms: number;
}

/** The longest gap since the last question. */
async function askProbe(server: BenchServer): Promise<LongestGap> {
  rmSync(server.probePath, { force: true });
  process.kill(server.pid, "SIGUSR2");
  while (!existsSync(server.probePath)) await Bun.sleep(1);
  return JSON.parse(readFileSync(server.probePath, "utf8"));
}

const phases = new Map<string, Phase[]>();

/** Does it `count` times. Its time is that of one. */
async function during<Result>(server: BenchServer, name: string, count: number, work: () => Promise<Result>) {
  await askProbe(server);
  const begin = performance.now();
  let result = await work();
  for (let done = 1; done < count; done++) result = await work();
  const ms = (performance.now() - begin) / count;
  const all = phases.get(name) ?? [];
  phases.set(name, [...all, { ms, ...(await askProbe(server)) }]);
  return result;
}

function toTensors(count: number) {
  return Array.from({ length: count }, (_, index) => {
    return { name: `model.layers.${index % 90}.mlp.experts.${index}.gate_proj.weight`, dtype: "F16", shape: [4, 4] };
  });
}

/** Not parsed: that is a client's work. */
async function read(server: BenchServer, path: string): Promise<number> {
  const response = await fetch(`http://localhost${path}`, { unix: server.socket });
  if (!response.ok) throw new Error(`GET ${path} answered ${response.status}`);
  return (await response.arrayBuffer()).byteLength;
}

await using server = await BenchServer.start({ preload: join(import.meta.dir, "lib/loop-probe.ts") });
await during(server, "idle", 1, () => Bun.sleep(1000));
let leased = { id: "" };
for (let count = 0; count < 1000; count++) {
  leased = await server.call("POST", "/v1/regions", { byte_size: 64, name: `region-${count}`, ttl_ms: hour });
  await server.call("POST", `/v1/regions/${leased.id}/leases`, { ttl_ms: hour });
}
for (let count = 1; count < 1000; count++) {
  await server.call("POST", `/v1/regions/${leased.id}/leases`, { ttl_ms: hour });
}
const tensors = toTensors(100_000);
for (let turn = 0; turn < rounds; turn++) {
  await during(server, "page of 1,000 regions", pages, () => read(server, "/v1/regions?limit=1000"));
  await during(server, "page of 1,000 leases", pages, () => read(server, `/v1/regions/${leased.id}/leases?limit=1000`));
  const body = { tensors, name: "many", ttl_ms: hour };
  const { id } = await during(server, "create", 1, () => server.call<{ id: string }>("POST", "/v1/regions", body));
  const path = `/v1/regions/${id}`;
  await during(server, "attach to it again", 1, () =>
    server.call("POST", "/v1/regions", { ...body, if_exists: "attach" }),
  );
  await during(server, "descriptor", 10, () => read(server, path));
  await during(server, "one tensor by name", 200, () => read(server, `${path}/data?tensor=${tensors[77_777]?.name}`));
  await during(server, "seal", 1, () => server.call("POST", `${path}/seal`, {}));
  await during(server, "delete", 1, () => server.call("DELETE", path));
}
for (const [name, all] of phases) {
  const [ms, thread, clock] = [median(all.map((phase) => phase.ms)), ...longestOf(all)];
  const long = all.reduce((sum, phase) => sum + phase.long, 0);
  const held = `the loop held for ${round(thread)} ms of its own time at most, ${round(clock)} by the clock`;
  say(`${name.padEnd(21)} ${round(ms)} ms each; ${held}; over 2 ms ${long} times in ${all.length} rounds`);
}
for (let count = 0; count < 20; count++) {
  await server.call("POST", "/v1/regions", { tensors: tensors.slice(0, 10_000), name: `ten-${count}`, ttl_ms: hour });
}
await server.call("POST", "/v1/regions", { tensors, name: "hundred", ttl_ms: hour });
await server.end("SIGKILL");
const startMs = await server.start();
say(`kill to ready with 20 regions of 10,000 tensors and one of 100,000: ${round(startMs)} ms`);
const rss = server.memoryBytes("Rss") / 2 ** 20;
say(`resident memory of the server after that: ${round(rss)} MiB`);
report({
  benchmark: "many",
  question: "longest time that the event loop is held, in ms of its own thread",
  ratios: [...phases].map(([name, all]) => {
    return { what: `ms, ${name}`, ratio: longestOf(all)[0] ?? Number.NaN, target: targetMs };
  }),
  details: { rounds, startMs, phases: Object.fromEntries(phases) },
});

/** Of a phase: the median of the rounds' longest, by the thread and by the clock. One stall is not a result. */
function longestOf(all: readonly Phase[]): [number, number] {
  return [median(all.map(({ thread }) => thread)), median(all.map(({ clock }) => clock))];
}
