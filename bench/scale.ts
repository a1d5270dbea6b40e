/**
 * Does it stay fast when it is full? Allocation with 100,000 live regions over the same with 100, in alternating batches
 * against two servers; a page of the list and the stats, likewise; the server's memory for each region; how long a
 * restart takes with all of them; and for how long a page of 1,000 of them holds the event loop.
 */

import { askProbe, type Held, preloadProbe } from "./lib/ask-probe.ts";
import { HttpConnection, toRequest } from "./lib/http-connection.ts";
import { round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median, summarize } from "./lib/statistics.ts";

const few = 100;
const many = Number(process.env.BENCH_REGIONS ?? 100_000);
const batch = 200;
const batchesWanted = 20;
const batchesTried = 5 * batchesWanted;
const restarts = 3;
/** Rounds of pages of 1,000 whose longest holds count, behind one that warms up, and pages of a round. */
const holdRounds = 5;
const holdPages = 40;
const readsWarming = 50;
const readsMeasured = 500;
/** A page of header and a page of data. */
const bytesEach = 2 * 4096;
/** Requests that are under way at once while the servers are filled. */
const filling = 8;

const body = { tensors: [{ name: "data", dtype: "F32", shape: [1024] }], ttl_ms: 3_600_000 };
const post = toRequest("POST", "/v1/regions", body);

async function fill(server: BenchServer, count: number): Promise<void> {
  let left = count;
  const work = async () => {
    using connection = await HttpConnection.open(server.socket);
    while (left-- > 0) await allocate(connection);
  };
  await Promise.all(Array.from({ length: filling }, work));
}

async function allocate(connection: HttpConnection): Promise<string> {
  const { status, body: text } = await connection.send(post);
  if (status !== 201) throw new Error(`answered ${status}: ${text}`);
  return (JSON.parse(text) as { id: string }).id;
}

/** Allocates a batch and frees it again. @returns the µs of each allocation. */
async function time(connection: HttpConnection): Promise<number[]> {
  const us: number[] = [];
  const ids: string[] = [];
  for (let index = 0; index < batch; index++) {
    const begin = performance.now();
    ids.push(await allocate(connection));
    us.push((performance.now() - begin) * 1000);
  }
  for (const id of ids) await connection.send(toRequest("DELETE", `/v1/regions/${id}`));
  return us;
}

async function compareAllocation(small: BenchServer, large: BenchServer) {
  using toSmall = await HttpConnection.open(small.socket);
  using toLarge = await HttpConnection.open(large.socket);
  const batches: { few: number[]; many: number[]; isQuiet: boolean }[] = [];
  const isEnough = () => batches.filter(({ isQuiet }) => isQuiet).length >= batchesWanted;
  // The first batches warm both up and are left out.
  for (let tried = -2; tried < batchesTried && !isEnough(); tried++) {
    const watch = new OthersWatch([process.pid, small.pid, large.pid]);
    const [few, many] = [await time(toSmall), await time(toLarge)];
    if (tried >= 0) batches.push({ few, many, isQuiet: watch.isQuiet() });
  }
  const chosen = chooseQuiet(batches, batchesWanted / 2);
  return { few: summarize(chosen.flatMap(({ few }) => few)), many: summarize(chosen.flatMap(({ many }) => many)) };
}

interface Page {
  readonly items: readonly unknown[];
  readonly next_cursor: string | null;
}

/** The µs of a question, each asked of both in turns, and the ms of reading the whole list of the large one. */
async function compareReads(small: BenchServer, large: BenchServer) {
  using toSmall = await HttpConnection.open(small.socket);
  using toLarge = await HttpConnection.open(large.socket);
  const ask = async (connection: HttpConnection, path: string) => {
    const begin = performance.now();
    const { status, body: text } = await connection.send(toRequest("GET", path));
    if (status !== 200) throw new Error(`answered ${status}: ${text}`);
    return { us: (performance.now() - begin) * 1000, text };
  };
  const compare = async (path: string) => {
    const few: number[] = [];
    const many: number[] = [];
    for (let tried = -readsWarming; tried < readsMeasured; tried++) {
      const [inSmall, inLarge] = [await ask(toSmall, path), await ask(toLarge, path)];
      if (tried < 0) continue;
      few.push(inSmall.us);
      many.push(inLarge.us);
    }
    return { few: summarize(few), many: summarize(many) };
  };
  // Both have a hundred: the same answer of a few and of very many.
  const stats = await compare("/v1/stats");
  const page = await compare(`/v1/regions?limit=${few}`);
  const begin = performance.now();
  let listed = 0;
  for (let cursor: string | null = ""; cursor !== null; ) {
    const path: string = `/v1/regions?limit=1000${cursor === "" ? "" : `&cursor=${cursor}`}`;
    // A long page comes in chunks, which the bare connection does not read.
    const { items, next_cursor } = await large.call<Page>("GET", path);
    listed += items.length;
    cursor = next_cursor;
  }
  if (listed !== many) throw new Error(`listed ${listed} regions, want ${many}`);
  return { stats, page, listMs: performance.now() - begin };
}

/** Kills and starts the server, some times. @returns the ms to readiness of each, and the memory after the last. */
async function restart(server: BenchServer): Promise<{ ms: number[]; bytes: number }> {
  const ms: number[] = [];
  for (let count = 0; count < restarts; count++) {
    await server.end("SIGKILL");
    ms.push(await server.start());
  }
  await settle(server);
  return { ms, bytes: server.memoryBytes("Private_Dirty") };
}

/** Waits until the collector has had its turn: memory that did not change for a second. */
async function settle(server: BenchServer): Promise<void> {
  for (let before = 0, now = -1; now !== before; ) {
    before = server.memoryBytes("Private_Dirty");
    await Bun.sleep(1000);
    now = server.memoryBytes("Private_Dirty");
  }
}

/** Of the server with many, started anew with the probe: of each round of pages of 1,000, for how long the loop was held. */
async function measureHold(server: BenchServer): Promise<Held[]> {
  await server.end("SIGKILL");
  await server.start(preloadProbe);
  const held: Held[] = [];
  for (let turn = -1; turn < holdRounds; turn++) {
    await askProbe(server);
    // From the middle of the list on, where a place has to be found.
    const path = `/v1/regions?limit=1000&cursor=${many >> 1}`;
    for (let count = 0; count < holdPages; count++) await server.call("GET", path);
    const seen = await askProbe(server);
    if (turn >= 0) held.push(seen);
  }
  return held;
}

if (await findRoom(4 * many * bytesEach + 2 ** 28)) {
  await using small = await BenchServer.start();
  await using large = await BenchServer.start();
  await fill(small, few);
  const begin = performance.now();
  await fill(large, many);
  say(
    `made ${many} regions, ${round(many / ((performance.now() - begin) / 1000), 0)} a second with ${filling} clients`,
  );
  const allocation = await compareAllocation(small, large);
  await settle(small);
  await settle(large);
  const running = { few: small.memoryBytes("Private_Dirty"), many: large.memoryBytes("Private_Dirty") };
  const reads = await compareReads(small, large);
  const afterFew = await restart(small);
  const afterMany = await restart(large);
  const held = await measureHold(large);
  const each = (fewBytes: number, manyBytes: number) => (manyBytes - fewBytes) / (many - few);
  const readyMs = { few: median(afterFew.ms), many: median(afterMany.ms) };
  say(
    `allocate with ${few}: p50 ${round(allocation.few.p50, 0)} µs; with ${many}: p50 ${round(allocation.many.p50, 0)} µs`,
  );
  say(`ready after a kill with ${few}: ${round(readyMs.few, 0)} ms; with ${many}: ${round(readyMs.many, 0)} ms`);
  for (const [what, { few: inFew, many: inMany }] of Object.entries({ stats: reads.stats, page: reads.page })) {
    say(`${what} with ${few}: p50 ${round(inFew.p50, 0)} µs; with ${many}: p50 ${round(inMany.p50, 0)} µs`);
  }
  const holdMs = (key: "thread" | "uncollected" | "clock") => round(median(held.map((seen) => seen[key])));
  say(
    `a page of 1,000 of ${many} holds the loop for ${holdMs("thread")} ms of its own time at most, ${holdMs("uncollected")} where no collection ended, ${holdMs("clock")} by the clock`,
  );
  say(`the whole list of ${many}: ${round(reads.listMs, 0)} ms`);
  report({
    benchmark: "scale",
    question: `allocation, memory and restart with ${many} live regions`,
    ratios: [
      {
        what: `p50 of allocation, with ${many} over with ${few}`,
        ratio: allocation.many.p50 / allocation.few.p50,
        target: 1.2,
      },
      { what: `p50 of the stats, with ${many} over with ${few}`, ratio: reads.stats.many.p50 / reads.stats.few.p50 },
      {
        what: `p50 of a page of ${few} of the list, with ${many} over with ${few}`,
        ratio: reads.page.many.p50 / reads.page.few.p50,
      },
      {
        what: "KiB of server memory a region, running",
        ratio: each(running.few, running.many) / 1024,
        target: 2,
      },
      {
        what: "KiB of server memory a region, after a restart",
        ratio: each(afterFew.bytes, afterMany.bytes) / 1024,
        target: 2,
      },
      { what: `seconds from a kill to ready with ${many}`, ratio: readyMs.many / 1000, target: 2 },
      {
        what: `ms that a page of 1,000 of ${many} holds the loop, longest`,
        ratio: median(held.map(({ thread }) => thread)),
        target: 2,
      },
      {
        what: "the same where no collection ended",
        ratio: median(held.map(({ uncollected }) => uncollected)),
        target: 2,
      },
    ],
    details: {
      unit: "µs",
      few,
      many,
      allocation,
      reads,
      privateDirtyBytes: { running, restarted: [afterFew.bytes, afterMany.bytes] },
      readyMs,
      held,
    },
  });
}
