/**
 * How soon is a dead worker's memory there again? SIGKILL of a worker whose session is held and which maps what it wrote:
 * ms until its last region is out of the books, and until its pages are free in the file system.
 */

import { DoomedWorkers } from "../tests/harness/instance-doomed.ts";
import { freeShmBytes, round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const deaths = 5;
const booksTargetMs = 100;
const pagesTargetMsPerGiB = 250;
/** Pages are back when all but this share of them are: the store takes and gives back some of its own meanwhile. */
const slackShare = 0.02;
/** What the worker holds. */
const holdings = [
  { what: "one region of 64 MiB", byteSizes: [64 * MiB - 4096] },
  { what: "one region of 1 GiB", byteSizes: [GiB - 4096] },
  { what: "one region of 4 GiB", byteSizes: [4 * GiB - 4096] },
  { what: "4 regions of 1 GiB", byteSizes: Array<number>(4).fill(GiB - 4096) },
  { what: "1000 regions of 1 MiB", byteSizes: Array<number>(1000).fill(MiB - 4096) },
];

interface Death {
  /** Until the last of its regions had left the books of the living. */
  readonly booksMs: number;
  readonly endedMs: number;
  readonly pagesMs: number;
}

/** When each event came, by type, of those that tell the end of a session and its regions. */
class Watch implements Disposable {
  readonly #socket: WebSocket;
  readonly times: Record<string, number[]> = {};

  constructor(socket: string) {
    this.#socket = new WebSocket(
      `ws+unix://${socket}:/v1/events/ws?types=tensord.region.draining,tensord.session.ended`,
    );
    this.#socket.onmessage = ({ data }) => {
      const { type } = JSON.parse(data) as { type: string };
      const times = this.times[type] ?? [];
      this.times[type] = times;
      times.push(performance.now());
    };
  }

  async opened(): Promise<void> {
    while (this.times["tensord.stream.opened"] === undefined) await Bun.sleep(1);
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

async function die(server: BenchServer, byteSizes: readonly number[]): Promise<Death> {
  const before = freeShmBytes();
  const slackBytes = Math.max(MiB, slackShare * byteSizes.reduce((sum, size) => sum + size, 0));
  await using workers = new DoomedWorkers(server.socket);
  workers.start({ id: 1, role: "holding", seed: 1, byte_sizes: byteSizes });
  const { pid } = await workers.untilAt(1, "holding", 120_000);
  using watch = new Watch(server.socket);
  await watch.opened();
  const begin = performance.now();
  workers.kill(pid);
  while (freeShmBytes() < before - slackBytes) await Bun.sleep(1);
  const pagesMs = performance.now() - begin;
  while (watch.times["tensord.session.ended"] === undefined) await Bun.sleep(1);
  const drained = watch.times["tensord.region.draining"] ?? [];
  if (drained.length !== byteSizes.length) throw new Error(`${drained.length} of ${byteSizes.length} regions ended`);
  return {
    booksMs: (drained.at(-1) ?? Number.NaN) - begin,
    endedMs: (watch.times["tensord.session.ended"][0] ?? Number.NaN) - begin,
    pagesMs,
  };
}

if (await findRoom(6 * GiB)) {
  await using server = await BenchServer.start();
  const ratios = [];
  const details: Record<string, readonly Death[]> = {};
  for (const { what, byteSizes } of holdings) {
    const seen: Death[] = [];
    for (let death = 0; death < deaths; death++) seen.push(await die(server, byteSizes));
    details[what] = seen;
    const gib = byteSizes.reduce((sum, size) => sum + size, 0) / GiB;
    const [booksMs, endedMs, pagesMs] = (["booksMs", "endedMs", "pagesMs"] as const).map((key) =>
      median(seen.map((death) => death[key])),
    ) as [number, number, number];
    const [books, ended, pages] = [booksMs, endedMs, pagesMs].map((ms) => round(ms, 1));
    say(`${what.padEnd(22)} out of the books after ${books} ms, session ended ${ended} ms, pages back ${pages} ms`);
    ratios.push({ what: `ms until out of the books, ${what}`, ratio: booksMs, target: booksTargetMs });
    const target = booksTargetMs + Math.ceil(gib * pagesTargetMsPerGiB);
    ratios.push({ what: `ms until the pages are back, ${what}`, ratio: pagesMs, target });
  }
  report({
    benchmark: "worker-death",
    question: "ms from SIGKILL of a worker until its memory is out of the books, and free",
    ratios,
    details: { unit: "ms", deaths: details },
  });
}
