/**
 * What does it cost to bring a request with a tensor of 4 MiB from one Python process to another, and a result of the same
 * size back: through a ring, over HTTP bodies on a Unix socket? CPU seconds of both processes together, less those of making
 * the bytes, which is the same work in every way; with it the ratio is told, without a target.
 */

import { round } from "./lib/machine.ts";
import { runPython } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const byteSize = 4 * MiB;

/** What `ring.py` measures: seconds a request, one number a batch. `open` is the ring with every slot mapped anew. */
type Timings = Readonly<
  Record<"ring" | "open" | "http", { readonly cpu: number[]; readonly elapsed: number[] }> & {
    work: { readonly cpu: number[] };
  }
>;

if (await findRoom(64 * MiB)) {
  await using server = await BenchServer.start();
  const timings = await runPython<Timings>("ring.py", [`unix://${server.socket}`, `${byteSize}`], [server.pid]);
  const toMs = (seconds: number[]) => summarize(seconds.map((value) => value * 1000));
  const of = ({ cpu, elapsed }: Timings["ring"]) => ({ cpu: toMs(cpu), elapsed: toMs(elapsed) });
  const ways = { ring: of(timings.ring), open: of(timings.open), http: of(timings.http) };
  const work = toMs(timings.work.cpu);
  say(`work: ${round(work.p50)} ms of CPU a request`);
  for (const [way, { cpu, elapsed }] of Object.entries(ways)) {
    say(`${way}: ${round(cpu.p50)} ms of CPU with it, ${round(elapsed.p50)} ms a request`);
  }
  const alone = (way: keyof typeof ways) => ways[way].cpu.p50 - work.p50;
  report({
    benchmark: "ring",
    question: "4 MiB request and result between two processes, through a ring and as HTTP bodies on a Unix socket",
    ratios: [
      { what: "CPU seconds a request, ring over HTTP", ratio: alone("ring") / alone("http"), target: 0.33 },
      { what: "the same with every slot mapped anew", ratio: alone("open") / alone("http") },
      { what: "the same with the work of making the bytes", ratio: ways.ring.cpu.p50 / ways.http.cpu.p50 },
      {
        what: "seconds a request with that work, ring over HTTP",
        ratio: ways.ring.elapsed.p50 / ways.http.elapsed.p50,
      },
    ],
    details: { unit: "ms", byteSize, work, ...ways },
  });
}
