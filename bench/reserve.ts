/**
 * What does a reserve save a worker? Create and write 1 MiB, 64 MiB and 1 GiB from Python on two servers in turns, one with a reserve that
 * is full before each round and one without, over one plain copy into pages that are there. The bytes are written through a map at a
 * multiple of 2 MiB, without which huge pages show nothing, and, beside it, by the Python client as it is.
 */

import { round } from "./lib/machine.ts";
import { runPython } from "./lib/python.ts";
import { type Ratio, report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
/** The most that the client's create may take on a hit, over the copy. */
const targets = new Map([
  [MiB, 9],
  [64 * MiB, 1],
  [GiB, 1.2],
]);
const sizes = (process.env.BENCH_MIB ?? "1,64,1024").split(",").map((count) => Number(count) * MiB);

/** What `reserve.py` times, in ms, and how many of the rounds found a segment. */
interface Timings {
  readonly ms: Readonly<Record<"memcpy" | "reserve" | "none" | "client_reserve" | "client_none", readonly number[]>>;
  readonly hits: number;
  readonly misses: number;
}

if (await findRoom(5 * GiB)) {
  await using ready = await BenchServer.start({ settings: { TENSORD_RESERVE_BYTES: String(GiB) } });
  await using plain = await BenchServer.start();
  const ratios: Ratio[] = [];
  const details: Record<string, unknown> = { unit: "ms" };
  for (const byteSize of sizes) {
    const sockets = [ready.socket, plain.socket];
    const { ms, hits, misses } = await runPython<Timings>(
      "reserve.py",
      [...sockets, String(byteSize)],
      [ready.pid, plain.pid],
    );
    const summaries = Object.fromEntries(Object.entries(ms).map(([what, times]) => [what, summarize(times)]));
    const p50 = (what: keyof Timings["ms"]) => summaries[what]?.p50 ?? Number.NaN;
    const size = byteSize < GiB ? `${byteSize / MiB} MiB` : `${byteSize / GiB} GiB`;
    say(`${size}: ${hits} of ${hits + misses} regions lay ready; memcpy ${round(p50("memcpy"), 3)} ms`);
    const add = (what: string, over: keyof Timings["ms"], target?: number) =>
      ratios.push({
        what: `${size}: ${what}, over memcpy`,
        ratio: p50(over) / p50("memcpy"),
        ...(target === undefined ? {} : { target }),
      });
    add("on a reserve hit, aligned map", "reserve");
    add("without a reserve, aligned map", "none");
    add("on a reserve hit, the client's create", "client_reserve", hits > 0 ? targets.get(byteSize) : undefined);
    add("without a reserve, the client's create", "client_none");
    details[size] = { hits, misses, timings: summaries };
  }
  report({
    benchmark: "reserve",
    question:
      "create and write from a worker, with a reserve and without, over one single-threaded memcpy into warm pages",
    ratios,
    details,
  });
}
