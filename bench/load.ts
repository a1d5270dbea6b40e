/**
 * How long does a model file in the page cache take to become a region, over the fastest plain copy of it to the same tmpfs? By one `cp`, and
 * by two `dd` of half of it each, in turns; beside it the processor time of both, and how long the event loop was held.
 */

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askProbe, type Held, preloadProbe } from "./lib/ask-probe.ts";
import { round, shmDirectory } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const byteSize = Number(process.env.BENCH_GIB ?? 1) * GiB;
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
/** Of the speed of a copy, what a load is to have at least. */
const target = 1 / 0.8;
const loopTargetMs = 10;

interface Operation {
  readonly id: string;
  readonly region: string | null;
  readonly ended_at: string | null;
}

/** A safetensors file of 600 tensors. */
function writeModel(path: string): void {
  const count = 600;
  const each = Math.floor(byteSize / count / 4) * 4;
  const entries = Array.from({ length: count }, (_, at) => [
    `layer.${at}.weight`,
    { dtype: "F32", shape: [each / 4], data_offsets: [at * each, (at + 1) * each] },
  ]);
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(path, Buffer.concat([length, header]));
  const piece = Buffer.alloc(MiB, 7);
  for (let left = count * each; left > 0; left -= MiB) {
    writeFileSync(path, piece.subarray(0, Math.min(MiB, left)), { flag: "a" });
  }
}

/** Brings the file into the page cache, where the load before has let go of it. */
function warm(path: string): void {
  spawnSync("cat", [path], { stdio: "ignore" });
}

/** @returns ms of the whole copy. */
async function copy(commands: readonly (readonly [string, ...string[]])[], to: string): Promise<number> {
  const begin = performance.now();
  await Promise.all(
    commands.map(async ([command, ...args]) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const child = spawn(command, args, { stdio: "ignore" }).once("error", reject);
      child.once("exit", (status) => (status === 0 ? resolve() : reject(new Error(`${command} ended with ${status}`))));
      await promise;
    }),
  );
  const took = performance.now() - begin;
  unlinkSync(to);
  return took;
}

async function load(server: BenchServer, path: string): Promise<number> {
  const begin = performance.now();
  const body = { uri: `file://${path}`, ttl_ms: 3_600_000 };
  let operation = await server.call<Operation>("POST", "/v1/models/default/load", body);
  while (operation.ended_at === null) {
    await Bun.sleep(2);
    operation = await server.call<Operation>("GET", `/v1/operations/${operation.id}`);
  }
  const took = performance.now() - begin;
  if (operation.region === null) throw new Error(`the load failed: ${JSON.stringify(operation)}`);
  await server.call("DELETE", `/v1/regions/${operation.region}`);
  return took;
}

if (await findRoom(3 * byteSize)) {
  const folder = mkdtempSync(join(tmpdir(), "tensord-bench-models-"));
  try {
    const path = join(folder, "model.safetensors");
    writeModel(path);
    const to = join(shmDirectory, `tensord-bench-copy-${process.pid}`);
    const half = Math.ceil(byteSize / 2 / MiB);
    const dd = (skip: number, count?: number): [string, ...string[]] => [
      "dd",
      ...[`if=${path}`, `of=${to}`, `bs=1M`, `skip=${skip}`, `seek=${skip}`, "conv=notrunc"],
      ...(count === undefined ? [] : [`count=${count}`]),
    ];
    await using server = await BenchServer.start({
      preload: preloadProbe,
      settings: { TENSORD_RESERVE_BYTES: "0", TENSORD_MODEL_ROOTS: folder },
    });
    const seen = { cp: [] as number[], halves: [] as number[], load: [] as number[], loop: [] as Held[] };
    for (let turn = -1; turn < rounds; turn++) {
      warm(path);
      const cp = await copy([["cp", path, to]], to);
      warm(path);
      const halves = await copy([dd(0, half), dd(half)], to);
      warm(path);
      await askProbe(server);
      const took = await load(server, path);
      const loop = await askProbe(server);
      // The first warms up and is left out.
      if (turn < 0) continue;
      seen.cp.push(cp);
      seen.halves.push(halves);
      seen.load.push(took);
      seen.loop.push(loop);
    }
    const [cp, halves, took] = [median(seen.cp), median(seen.halves), median(seen.load)];
    say(`cp ${round(cp, 0)} ms, in halves ${round(halves, 0)} ms, load ${round(took, 0)} ms`);
    const fastest = Math.min(cp, halves);
    report({
      benchmark: "load",
      question: "ms to load a file in the page cache over the fastest plain copy of it to the same tmpfs",
      ratios: [
        { what: `load of ${round(byteSize / GiB)} GiB over the fastest plain copy`, ratio: took / fastest, target },
        { what: "the same over one cp", ratio: took / cp },
        {
          what: "longest ms of its own thread's time that the event loop was held meanwhile",
          ratio: Math.max(...seen.loop.map(({ thread }) => thread)),
          target: loopTargetMs,
        },
      ],
      details: { unit: "ms", ...seen },
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
