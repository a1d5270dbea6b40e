/**
 * How long is the event loop held at a time by pages of 1,000 regions and leases, and by a region of 100,000 tensors: made,
 * read, sealed, asked for one tensor, deleted? And how long does a start take that finds such regions?
 */

import { freemem } from "node:os";
import { askProbe, type Held, preloadProbe } from "./lib/ask-probe.ts";
import { round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { BenchServer } from "./lib/server.ts";
import { median } from "./lib/statistics.ts";

const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const pages = 200;
const targetMs = 2;
const hour = 3_600_000;
/** Of the control, whose garbage stays: rounds that count behind one that warms up, pages of each, and what it takes. */
const controlRounds = 3;
const controlPages = 40;
const controlBytes = 4 * 2 ** 30;

interface Phase extends Held {
  readonly ms: number;
}

type Phases = Map<string, Phase[]>;

/** Does it `count` times. Its time is that of one. */
async function during<Result>(
  [server, phases]: readonly [BenchServer, Phases],
  name: string,
  count: number,
  work: () => Promise<Result>,
) {
  await askProbe(server);
  const begin = performance.now();
  let result = await work();
  for (let done = 1; done < count; done++) result = await work();
  const ms = (performance.now() - begin) / count;
  phases.set(name, [...(phases.get(name) ?? []), { ms, ...(await askProbe(server)) }]);
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

/** @returns the path of a region with 1,000 leases, beside 999 others. */
async function fill(server: BenchServer): Promise<string> {
  let path = "";
  for (let count = 0; count < 1000; count++) {
    const body = { byte_size: 64, name: `region-${count}`, ttl_ms: hour };
    path = `/v1/regions/${(await server.call<{ id: string }>("POST", "/v1/regions", body)).id}`;
    await server.call("POST", `${path}/leases`, { ttl_ms: hour });
  }
  for (let count = 1; count < 1000; count++) await server.call("POST", `${path}/leases`, { ttl_ms: hour });
  return path;
}

const tensors = toTensors(100_000);

async function turn(on: readonly [BenchServer, Phases], leased: string, pagesEach: number): Promise<void> {
  const [server] = on;
  await during(on, "idle", 1, () => Bun.sleep(1000));
  await during(on, "page of 1,000 regions", pagesEach, () => read(server, "/v1/regions?limit=1000"));
  await during(on, "page of 1,000 leases", pagesEach, () => read(server, `${leased}/leases?limit=1000`));
  const body = { tensors, name: "many", ttl_ms: hour };
  const { id } = await during(on, "create", 1, () => server.call<{ id: string }>("POST", "/v1/regions", body));
  const path = `/v1/regions/${id}`;
  await during(on, "attach to it again", 1, () => server.call("POST", "/v1/regions", { ...body, if_exists: "attach" }));
  await during(on, "descriptor", pagesEach / 20, () => read(server, path));
  await during(on, "one tensor by name", pagesEach, () => read(server, `${path}/data?tensor=${tensors[77_777]?.name}`));
  await during(on, "seal", 1, () => server.call("POST", `${path}/seal`, {}));
  await during(on, "delete", 1, () => server.call("DELETE", path));
}

/** The same work in a server whose collector is off: what holds its loop is ours alone. */
async function measureControl(): Promise<Phases> {
  const phases: Phases = new Map();
  if (freemem() < controlBytes) {
    say(`SKIP   the control without a collector: want ${controlBytes / 2 ** 30} GiB of free memory`);
    return phases;
  }
  const settings = { TENSORD_RESERVE_BYTES: "0", BUN_JSC_useGC: "0" };
  await using server = await BenchServer.start({ preload: preloadProbe, settings });
  const leased = await fill(server);
  await turn([server, new Map()], leased, controlPages);
  for (let count = 0; count < Math.min(rounds, controlRounds); count++) {
    await turn([server, phases], leased, controlPages);
  }
  return phases;
}

const control = await measureControl();
const phases: Phases = new Map();
await using server = await BenchServer.start({ preload: preloadProbe });
const leased = await fill(server);
for (let count = 0; count < rounds; count++) await turn([server, phases], leased, pages);
const collection = await askProbe(server, "SIGWINCH");
for (const [name, all] of phases) {
  const sum = (key: "long" | "longCollected") => all.reduce((sum, phase) => sum + phase[key], 0);
  const held = `the loop held for ${round(longest(all, "thread"))} ms of its own time at most`;
  const others = control.get(name);
  const ours = others === undefined ? "" : `, ${round(longest(others, "thread"))} without a collector`;
  const parts = `${round(longest(all, "uncollected"))} where no collection ended${ours}`;
  const long = `over 2 ms ${sum("long")} times in ${all.length} rounds, ${sum("longCollected")} of them with a collection`;
  const clock = `${round(longest(all, "clock"))} by the clock`;
  say(`${name.padEnd(21)} ${round(median(all.map(({ ms }) => ms)))} ms each; ${held}, ${parts}, ${clock}; ${long}`);
}
say(`a collection of the young in that heap, with nothing else to do: ${round(collection.thread)} ms`);
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
  ratios: [
    ...[...control].map(([name, all]) => {
      return { what: `ms, ${name}, ours: without a collector`, ratio: longest(all, "thread"), target: targetMs };
    }),
    ...[...phases].map(([name, all]) => {
      return { what: `ms, ${name}, the collector's in it`, ratio: longest(all, "thread"), target: targetMs };
    }),
  ],
  details: { rounds, startMs, collection, phases: Object.fromEntries(phases), control: Object.fromEntries(control) },
});

/** Of a phase: the median of the rounds' longest. One stall is not a result. */
function longest(all: readonly Phase[], key: "thread" | "clock" | "uncollected"): number {
  return median(all.map((phase) => phase[key]));
}
