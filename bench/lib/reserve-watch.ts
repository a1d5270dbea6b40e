/** What a server's reserve of small files does, by its metrics: whether there are as many as will be taken, and what was taken. */

import type { BenchServer } from "./server.ts";

const deadlineMs = 60_000;

export class ReserveWatch {
  readonly #server: BenchServer;
  #hits = 0;
  /** What it takes with all of its files, as far as was seen. */
  #fullBytes = 0;

  constructor(server: BenchServer) {
    this.#server = server;
  }

  /** Waits until nothing is added to it any more, and it is as large as it ever was. */
  async full(): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    for (let before = -1; performance.now() < deadline; await Bun.sleep(20)) {
      const text = await this.#metrics();
      const bytes = read(text, 'tensord_memory_bytes{pool="host",kind="reserve"}');
      this.#hits = read(text, 'tensord_reserve_hits_total{class="small"}');
      if (bytes > 0 && bytes === before && bytes >= this.#fullBytes) {
        this.#fullBytes = bytes;
        return;
      }
      before = bytes;
    }
    throw new Error("the reserve did not become full");
  }

  /** How many regions were made of its small files since it was full. */
  async takeHits(): Promise<number> {
    return read(await this.#metrics(), 'tensord_reserve_hits_total{class="small"}') - this.#hits;
  }

  async #metrics(): Promise<string> {
    return await (await fetch("http://localhost/metrics", { unix: this.#server.socket })).text();
  }
}

function read(metrics: string, series: string): number {
  const line = metrics.split("\n").find((each) => each.startsWith(`${series} `));
  if (line === undefined) throw new Error(`there is no ${series} in the metrics`);
  return Number(line.slice(series.length + 1));
}
