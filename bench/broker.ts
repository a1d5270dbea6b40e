/**
 * What does a descriptor through the broker cost: opened anew, leased and looked up, over a bare round trip with a descriptor to
 * another process that does nothing else. Alone, and beside a thousand connections that are held; on one core, and on two.
 */

import { round } from "./lib/machine.ts";
import { runPython } from "./lib/python.ts";
import { type Ratio, report, say } from "./lib/result.ts";
import { BenchServer } from "./lib/server.ts";
import { type Summary, summarize } from "./lib/statistics.ts";

/** What `broker.py` times, in µs. */
type Timings = Readonly<Record<"bare" | "opening" | "attach", number[]>>;

await using server = await BenchServer.start();
const { id } = await server.call<{ id: string }>("POST", "/v1/regions", { byte_size: 2 ** 20, ttl_ms: 3_600_000 });
await server.call("POST", `/v1/regions/${id}/seal`, {});
const broker = server.socket.replace("http.sock", "broker.sock");
const details: Record<string, Record<string, Summary>> = {};
const ratios: Ratio[] = [];
for (const cores of [1, 2]) {
  for (const held of [0, 1000]) {
    const args = [broker, id, String(held), String(server.pid), String(cores)];
    const timings = await runPython<Timings>("broker.py", args, [server.pid]);
    const summaries = Object.fromEntries(Object.entries(timings).map(([what, us]) => [what, summarize(us)]));
    const where = `${cores === 1 ? "on one core" : "on two cores"}${held === 0 ? "" : `, beside ${held} connections`}`;
    details[where] = summaries;
    const shown = Object.entries(summaries).map(
      ([what, { p50, p99 }]) => `${what} ${round(p50, 1)} (p99 ${round(p99, 1)}) µs`,
    );
    say(`${where}: ${shown.join(", ")}`);
    const p50 = (what: keyof Timings) => summaries[what]?.p50 ?? Number.NaN;
    ratios.push(
      { what: `${where}: attach over a bare SCM_RIGHTS round trip`, ratio: p50("attach") / p50("bare"), target: 3 },
      { what: `${where}: attach over one that opens the file each time`, ratio: p50("attach") / p50("opening") },
    );
  }
}
report({ benchmark: "broker", question: "What does a descriptor through the broker cost?", ratios, details });
