/**
 * What does it cost a Python worker to map a region that is there? With the descriptor or a reference in hand, over the bare system
 * calls, at 1 MiB and at 16 GiB, of which all but the first is a hole; by name, over a raw exchange of the same request and the bare
 * calls: asked for each time, as at first, and attached before.
 */

import { round } from "./lib/machine.ts";
import { runPython } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { type Summary, summarize } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const sizes = [
  { label: "1 MiB", byteSize: MiB },
  { label: "16 GiB", byteSize: 16 * GiB },
];

/** What `attach.py` times, in µs; `c` is null where there is no C compiler, and there is no way by name to a hole. */
type Timings = Readonly<
  Record<"descriptor" | "reference" | "python", number[]> &
    Partial<Record<"asked" | "name" | "exchange_and_python", number[]>> & { c: number[] | null }
>;

if (await findRoom(64 * MiB)) {
  await using server = await BenchServer.start();
  const details: Record<string, Record<string, Summary>> = {};
  for (const { label, byteSize } of sizes) {
    const name = `weights-${byteSize}`;
    const request = { name, byte_size: MiB, ttl_ms: 3_600_000 };
    const region = await server.call<{ id: string }>("POST", "/v1/regions", request);
    // What is sealed could not be grown.
    if (byteSize === MiB) await server.call("POST", `/v1/regions/${region.id}/seal`, {});
    const args = [`unix://${server.socket}`, name, String(byteSize)];
    const timings = await runPython<Timings>("attach.py", args, [server.pid]);
    const entries = Object.entries(timings).filter((entry): entry is [string, number[]] => entry[1] !== null);
    const summaries = Object.fromEntries(entries.map(([what, us]) => [what, summarize(us)]));
    details[label] = summaries;
    const shown = Object.entries(summaries).map(([what, { p50 }]) => `${what} ${round(p50, 1)} µs`);
    say(`${label}: ${shown.join(", ")}`);
    await server.call("DELETE", `/v1/regions/${region.id}`);
  }
  const p50 = (label: string, what: string) => details[label]?.[what]?.p50 ?? Number.NaN;
  const byWay = (label: string, what: "descriptor" | "reference") => ({
    what: `${label}: attach with a ${what} over open+mmap+munmap in Python`,
    ratio: p50(label, what) / p50(label, "python"),
    target: 2,
  });
  const at = (label: string) => [
    byWay(label, "descriptor"),
    byWay(label, "reference"),
    { what: `${label}: with a descriptor over those calls in C`, ratio: p50(label, "descriptor") / p50(label, "c") },
  ];
  const byName = (what: "asked" | "name", how: string) => ({
    what: `attach by name, ${how}, over a raw exchange of the same request and those calls in Python`,
    ratio: p50("1 MiB", what) / p50("1 MiB", "exchange_and_python"),
    target: 1.5,
  });
  report({
    benchmark: "attach",
    question: "attach from Python, over the bare calls and a raw exchange of the same request",
    ratios: [
      ...sizes.flatMap(({ label }) => at(label)),
      {
        what: "attach with a descriptor, 16 GiB over 1 MiB",
        ratio: p50("16 GiB", "descriptor") / p50("1 MiB", "descriptor"),
      },
      byName("name", "attached before"),
      byName("asked", "asked for each time"),
    ],
    details: { unit: "µs", sizes: details },
  });
}
