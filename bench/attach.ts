/**
 * What does it cost a Python worker to map a region that is there? With the descriptor in hand, over the bare system
 * calls; by name, over one trivial request on the same transport and the bare calls. At 1 MiB and at 4 GiB.
 */

import { round } from "./lib/machine.ts";
import { runPython } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { type Summary, summarize } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const sizes = [
  { label: "1 MiB", byteSize: MiB },
  { label: "4 GiB", byteSize: 4096 * MiB },
];

/** What `attach.py` times, in µs; `c` is null where there is no C compiler. */
interface Timings {
  readonly descriptor: number[];
  readonly python: number[];
  readonly c: number[] | null;
  readonly name: number[];
  readonly request_and_python: number[];
}

if (await findRoom(5 * 1024 * MiB)) {
  await using server = await BenchServer.start();
  const details: Record<string, Record<string, Summary>> = {};
  for (const { label, byteSize } of sizes) {
    const name = `weights-${byteSize}`;
    const region = await server.call<{ id: string }>("POST", "/v1/regions", {
      name,
      byte_size: byteSize,
      ttl_ms: 3_600_000,
    });
    await server.call("POST", `/v1/regions/${region.id}/seal`, {});
    const timings = await runPython<Timings>("attach.py", [`unix://${server.socket}`, name], [server.pid]);
    const entries = Object.entries(timings).filter((entry): entry is [string, number[]] => entry[1] !== null);
    const summaries = Object.fromEntries(entries.map(([what, us]) => [what, summarize(us)]));
    details[label] = summaries;
    const shown = Object.entries(summaries).map(([what, { p50 }]) => `${what} ${round(p50, 1)} µs`);
    say(`${label}: ${shown.join(", ")}`);
    await server.call("DELETE", `/v1/regions/${region.id}`);
  }
  const p50 = (label: string, what: string) => details[label]?.[what]?.p50 ?? Number.NaN;
  const at = (label: string) => [
    {
      what: `${label}: attach with a descriptor over open+mmap+munmap in Python`,
      ratio: p50(label, "descriptor") / p50(label, "python"),
      target: 2,
    },
    { what: `${label}: the same over those calls in C`, ratio: p50(label, "descriptor") / p50(label, "c") },
    {
      what: `${label}: attach by name over GET /livez and those calls`,
      ratio: p50(label, "name") / p50(label, "request_and_python"),
      target: 1.3,
    },
  ];
  report({
    benchmark: "attach",
    question: "attach from Python, over the bare calls and one trivial request",
    ratios: [
      ...sizes.flatMap(({ label }) => at(label)),
      {
        what: "attach with a descriptor, 4 GiB over 1 MiB",
        ratio: p50("4 GiB", "descriptor") / p50("1 MiB", "descriptor"),
      },
    ],
    details: { unit: "µs", sizes: details },
  });
}
