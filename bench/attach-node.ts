/**
 * What does it cost a Node worker to map a region that is there? By name, attached before and asked for each time, over a raw exchange of
 * the same request on a kept socket and the bare calls; over the same request by `node:http`; by a version that was attached before, and with the descriptor in hand, over
 * the bare calls. And what does the import of the package take?
 */

import { round } from "./lib/machine.ts";
import { runNode } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const byteSize = 2 ** 20;

/** What `attach.mjs` times, in µs; of the import in ms, once a process. */
type Timings = Readonly<
  Record<"name" | "asked" | "version" | "descriptor" | "bare" | "rawAndBare" | "httpAndBare", number[]> & {
    importMs: number;
  }
>;
const imports = 5;

if (await findRoom(8 * byteSize)) {
  await using server = await BenchServer.start();
  const region = await server.call<{ id: string }>("POST", "/v1/regions", {
    name: "weights",
    version: "1",
    byte_size: byteSize,
    ttl_ms: 3_600_000,
  });
  await server.call("POST", `/v1/regions/${region.id}/seal`, {});
  const args = [server.socket, "weights", "1"];
  const { importMs, ...timings } = await runNode<Timings>("attach.mjs", args, [server.pid]);
  const importTimes = [importMs];
  while (importTimes.length < imports)
    importTimes.push((await runNode<Timings>("attach.mjs", [...args, "0"], [server.pid])).importMs);
  const summaries = Object.fromEntries(Object.entries(timings).map(([what, us]) => [what, summarize(us)]));
  const p50 = (what: keyof typeof timings) => summaries[what]?.p50 ?? Number.NaN;
  for (const [what, { p50: us, p99 }] of Object.entries(summaries))
    say(`${what}: ${round(us, 1)} µs, p99 ${round(p99)}`);
  say(`import: ${round(summarize(importTimes).p50, 1)} ms`);
  report({
    benchmark: "attach-node",
    question: "attach from Node, over the bare calls and a raw exchange of the same request",
    ratios: [
      {
        what: "by name, attached before, over a raw exchange and the bare calls",
        ratio: p50("name") / p50("rawAndBare"),
        target: 1.5,
      },
      {
        what: "by name, asked for each time, over a raw exchange and the bare calls",
        ratio: p50("asked") / p50("rawAndBare"),
        target: 1.5,
      },
      { what: "by name, asked for each time, over node:http and those", ratio: p50("asked") / p50("httpAndBare") },
      { what: "by a version that was attached before, over the bare calls", ratio: p50("version") / p50("bare") },
      { what: "with a descriptor, over the bare calls", ratio: p50("descriptor") / p50("bare"), target: 2 },
    ],
    details: { unit: "µs", byteSize, summaries, importMs: importTimes },
  });
}
