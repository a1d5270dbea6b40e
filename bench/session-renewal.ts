/**
 * Does a session live while the machine works? Latency of `POST /v1/sessions/{session}/renew` at a steady rate while
 * gigabytes are allocated, copied into, hashed and freed beside it, and while nothing happens.
 */

import { HttpConnection, toRequest } from "./lib/http-connection.ts";
import { round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median, type Summary, summarize } from "./lib/statistics.ts";

const GiB = 2 ** 30;
const totalGiB = Number(process.env.BENCH_GIB ?? 8);
const renewalsPerSecond = 200;
const cycles = 3;
const idleMs = 3000;
const settleMs = 200;
const targetMs = 5;

interface Phase {
  readonly name: string;
  readonly ms: readonly number[];
  /** Whether nobody else used the machine. */
  readonly isQuiet: boolean;
}

/**
 * Renews in a fixed schedule until `work` has ended; a renewal that is late because of the one before counts with its wait.
 * @param work gives the processor time of its children, in seconds.
 */
async function renewDuring(
  connection: HttpConnection,
  request: Buffer,
  { name, pid, work }: { name: string; pid: number; work: () => Promise<number> },
): Promise<Phase> {
  const watch = new OthersWatch([process.pid, pid]);
  let isOver = false;
  const working = work().finally(() => {
    isOver = true;
  });
  const ms: number[] = [];
  for (let due = performance.now(); !isOver; due += 1000 / renewalsPerSecond) {
    const early = due - performance.now();
    if (early > 0) await Bun.sleep(early);
    // A timer's own lateness is not the server's.
    const begin = early > 0 ? performance.now() : due;
    const { status, body } = await connection.send(request);
    if (status !== 200) throw new Error(`the renewal answered ${status}: ${body}`);
    ms.push(performance.now() - begin);
  }
  const isQuiet = watch.isQuiet(await working);
  await Bun.sleep(settleMs);
  return { name, ms, isQuiet };
}

/** Copies zeros over the whole file, whose pages are there, as a worker would. @returns the processor seconds it took. */
async function copyInto(path: string): Promise<number> {
  const blocks = `count=${(totalGiB * GiB) / 2 ** 24}`;
  const child = Bun.spawn(["dd", "if=/dev/zero", `of=${path}`, "bs=16M", blocks, "conv=notrunc"], { stderr: "ignore" });
  if ((await child.exited) !== 0) throw new Error("dd failed");
  return Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1e6;
}

async function seal(server: BenchServer, id: string): Promise<void> {
  await server.call("POST", `/v1/regions/${id}/seal`, { checksum: true });
}

async function free(server: BenchServer, id: string): Promise<void> {
  await server.call("DELETE", `/v1/regions/${id}`);
}

async function measure(server: BenchServer): Promise<Phase[]> {
  const session = await server.call<{ id: string }>("POST", "/v1/sessions", { ttl_ms: 10_000 });
  using connection = await HttpConnection.open(server.socket);
  const request = toRequest("POST", `/v1/sessions/${session.id}/renew`);
  const phases: Phase[] = [];
  const run = async (name: string, work: () => Promise<unknown>) => {
    const inSeconds = async () => Number((await work()) ?? 0);
    phases.push(await renewDuring(connection, request, { name, pid: server.pid, work: inSeconds }));
  };
  for (let cycle = 0; cycle < cycles; cycle++) {
    await run("idle", () => Bun.sleep(idleMs));
    let region = { id: "", storage: { path: "" } };
    await run("allocate", async () => {
      region = await server.call("POST", "/v1/regions", { byte_size: totalGiB * GiB - 4096, session: session.id });
    });
    await run("copy", () => copyInto(region.storage.path));
    await run("hash", () => seal(server, region.id));
    await run("free", () => free(server, region.id));
  }
  return phases;
}

if (await findRoom((totalGiB + 1) * GiB)) {
  await using server = await BenchServer.start();
  const phases = await measure(server);
  const names = [...new Set(phases.map(({ name }) => name))];
  const details: Record<string, Summary & { readonly typicalP99: number }> = {};
  for (const name of names) {
    const own = chooseQuiet(
      phases.filter((phase) => phase.name === name),
      1,
    );
    // As in latency-under-allocation: one moment in which the virtual machine stands still is no result.
    const typicalP99 = median(own.map(({ ms }) => summarize(ms).p99));
    const summary = { ...summarize(own.flatMap(({ ms }) => ms)), typicalP99 };
    details[name] = summary;
    const [p50, p99, max] = [summary.p50, typicalP99, summary.max].map((value) => round(value));
    say(`${name.padEnd(9)} p50 ${p50} ms, p99 ${p99} ms, longest ${max} ms of ${summary.samples} renewals`);
  }
  report({
    benchmark: "session-renewal",
    question: `p99 of a renewal in ms while ${totalGiB} GiB are allocated, copied into, hashed and freed`,
    ratios: names.map((name) => ({
      what: `ms, p99 of a renewal, ${name}`,
      ratio: details[name]?.typicalP99 ?? Number.NaN,
      target: targetMs,
    })),
    details: { unit: "ms", totalGiB, renewalsPerSecond, phases: details },
  });
}
