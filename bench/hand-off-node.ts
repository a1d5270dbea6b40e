/**
 * What does it cost to hand bytes to another process and to get one byte back: by a ring (request, answer), over one mapping that both
 * have by hand with an index over a Unix socket, and as bytes over that socket? Node to Node, and Node to Python by the ring; all in turns
 * in one run, once with everybody on one core, once with each side on its own.
 */

import { availableParallelism } from "node:os";
import { round } from "./lib/machine.ts";
import { node, python } from "./lib/places.ts";
import { runNode } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { type Summary, summarize } from "./lib/statistics.ts";

const sizes = [64, 4096, 2 ** 20, 64 * 2 ** 20];
const slots = 4;
const targets: Readonly<Record<number, number>> = { 64: 3, 4096: 3, [2 ** 20]: 1.5, [64 * 2 ** 20]: 1.2 };
const shownSize = (bytes: number) => (bytes < 2 ** 20 ? `${bytes} B` : `${bytes / 2 ** 20} MiB`);

/** Of each way the microseconds of its rounds; `across` is null without the Python client. */
type Timings = Readonly<Record<"ring" | "across" | "mapping" | "bytes", readonly number[]>>;

if (await findRoom(slots * 3 * 64 * 2 ** 20)) {
  await using server = await BenchServer.start();
  const details: Record<string, Record<string, Summary>> = {};
  const placements = availableParallelism() > 1 ? ["one core", "two cores"] : ["one core"];
  for (const placement of placements) {
    for (const size of sizes) {
      const args = [server.socket, `${size}`, placement, node, python];
      const timings = await runNode<Timings>("hand-off.mjs", args, [server.pid]);
      const summaries = Object.fromEntries(Object.entries(timings).map(([way, us]) => [way, summarize([...us])]));
      details[`${placement}, ${shownSize(size)}`] = summaries;
      const shown = Object.entries(summaries).map(
        ([way, { p50, p99 }]) => `${way} ${round(p50, 1)} (p99 ${round(p99)})`,
      );
      say(`${placement}, ${shownSize(size)}: ${shown.join(", ")} µs`);
    }
  }
  const p50 = (key: string, way: keyof Timings) => details[key]?.[way]?.p50 ?? Number.NaN;
  const ratios = placements.flatMap((placement) =>
    sizes.flatMap((size) => {
      const key = `${placement}, ${shownSize(size)}`;
      // What one core does not tell: there the mapping's figures of two cores are the other's.
      const target = placement === "one core" || size >= 2 ** 20 ? targets[size] : undefined;
      return [
        {
          what: `${key}: ring over a mapping shared by hand`,
          ratio: p50(key, "ring") / p50(key, "mapping"),
          ...(target === undefined ? {} : { target }),
        },
        {
          what: `${key}: ring over the bytes on a Unix socket`,
          ratio: p50(key, "ring") / p50(key, "bytes"),
          ...(size >= 4096 ? { target: 1 } : {}),
        },
        { what: `${key}: the same, answered by Python`, ratio: p50(key, "across") / p50(key, "bytes") },
      ];
    }),
  );
  report({
    benchmark: "hand-off-node",
    question: "bytes to another process and one byte back, by a ring of Node's, by hand, and over a socket",
    ratios,
    details: { unit: "µs", details },
  });
}
