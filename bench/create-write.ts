/**
 * How long until a worker has its bytes in a new region? Create and write 1 GiB from Python (miss path: the pages are
 * made while it waits), over one plain copy into pages that are there, and beside the standard library's SharedMemory.
 */

import { round } from "./lib/machine.ts";
import { runPython } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const GiB = 2 ** 30;
const rounds = 7;

/** What `create_write.py` times, in ms. */
type Timings = Readonly<Record<"memcpy" | "create_and_write" | "create_alone" | "shared_memory", readonly number[]>>;

if (await findRoom(3 * GiB)) {
  await using server = await BenchServer.start();
  const args = [`unix://${server.socket}`, String(GiB), String(rounds)];
  const timings = await runPython<Timings>("create_write.py", args, [server.pid]);
  const summaries = Object.fromEntries(Object.entries(timings).map(([what, ms]) => [what, summarize(ms)]));
  const p50 = (what: keyof Timings) => summaries[what]?.p50 ?? Number.NaN;
  for (const [what, { samples }] of Object.entries(summaries)) {
    const ms = p50(what as keyof Timings);
    say(`${what.padEnd(16)} ${round(ms, 0)} ms, ${round(1000 / ms)} GiB/s, median of ${samples}`);
  }
  report({
    benchmark: "create-write",
    question: "create and write 1 GiB from a worker (miss path), over one single-threaded memcpy into warm pages",
    ratios: [
      {
        what: "create and write over memcpy without a reserve (`reserve` has the other)",
        ratio: p50("create_and_write") / p50("memcpy"),
      },
      { what: "SharedMemory(create=True) and the same copy, over memcpy", ratio: p50("shared_memory") / p50("memcpy") },
      { what: "create and write over SharedMemory", ratio: p50("create_and_write") / p50("shared_memory") },
    ],
    details: { unit: "ms", byteSize: GiB, timings: summaries },
  });
}
