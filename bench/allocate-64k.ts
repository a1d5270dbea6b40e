/**
 * What does an allocation cost beyond the request that carries it? POST of 64 KiB to the server, over a POST of the same
 * body to a server that validates it with the same libraries and answers at once, in alternating batches. Asked by
 * `fetch`, as a worker would, with and without a file that lies ready, and by a bare connection that costs next to nothing and so
 * shows the servers alone; then by eight connections of another process, as fast as they are answered.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import { CreateRegion } from "../src/routes/schemas/requests.ts";
import { type Answer, HttpConnection, toRequest } from "./lib/http-connection.ts";
import { LoadGenerator } from "./lib/load-generator.ts";
import { round } from "./lib/machine.ts";
import { bun } from "./lib/places.ts";
import { ReserveWatch } from "./lib/reserve-watch.ts";
import { report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median, summarize } from "./lib/statistics.ts";

const batch = 200;
/** As many files as lie ready for regions of this size. */
const hitBatch = 8;
const batchesWanted = 20;
const batchesTried = 5 * batchesWanted;
const connections = 8;
/** Requests of a piece to each of the two servers, of which the other answers in a fraction of the time. */
const piece = { ours: 2000, theirs: 10_000 };
const piecesWanted = 7;
const piecesTried = 3 * piecesWanted;
const body = { tensors: [{ name: "data", dtype: "F32", shape: [128, 128] }], ttl_ms: 600_000 };

/** The other side: Hono, zod-openapi and the server's own schema, and nothing behind them. */
function serveTrivially(unix: string): void {
  const app = new OpenAPIHono();
  const route = createRoute({
    method: "post",
    path: "/v1/regions",
    request: { body: { required: true, content: { "application/json": { schema: CreateRegion } } } },
    responses: {
      201: { description: "Validated.", content: { "application/json": { schema: z.object({ id: z.string() }) } } },
    },
  });
  app.openapi(route, (c) => c.json({ id: c.req.valid("json").tensors?.[0]?.name ?? "" }, 201));
  Bun.serve({ unix, fetch: app.fetch });
}

class TrivialServer implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "tensord-bench-"));
  readonly socket = join(this.#folder, "socket");
  readonly #process: ChildProcess = spawn(
    bun,
    ["--no-env-file", "--no-orphans", import.meta.path, "serve-trivially", this.socket],
    {
      stdio: ["ignore", "inherit", "inherit"],
    },
  );

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** Resolves once it answers. */
  async started(): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        using _ = await HttpConnection.open(this.socket);
        return;
      } catch (error) {
        if (tries > 500) throw error;
        await Bun.sleep(10);
      }
    }
  }

  [Symbol.dispose](): void {
    this.#process.kill();
    rmSync(this.#folder, { recursive: true });
  }
}

/** One who sends the POST. */
interface Client {
  /** Comes before each batch: a connection on which nobody asks is ended. */
  open?(): Promise<void>;
  post(): Promise<Answer>;
}

/** Times the POST for a batch. @returns the µs of each, and the ids that were answered. */
async function time(client: Client, count: number): Promise<{ us: number[]; ids: string[] }> {
  await client.open?.();
  const us: number[] = [];
  const answers: Answer[] = [];
  for (let index = 0; index < count; index++) {
    const begin = performance.now();
    answers.push(await client.post());
    us.push((performance.now() - begin) * 1000);
  }
  const failed = answers.find(({ status }) => status !== 201);
  if (failed !== undefined) throw new Error(`answered ${failed.status}: ${failed.body}`);
  return { us, ids: answers.map((answer) => (JSON.parse(answer.body) as { id: string }).id) };
}

function byFetch(unix: string): Client {
  const init = { unix, method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return {
    async post() {
      const response = await fetch("http://localhost/v1/regions", init);
      return { status: response.status, body: await response.text() };
    },
  };
}

class BareClient implements Client, Disposable {
  readonly #unix: string;
  readonly #request = toRequest("POST", "/v1/regions", body);
  #connection: HttpConnection | undefined;

  constructor(unix: string) {
    this.#unix = unix;
  }

  async open(): Promise<void> {
    this[Symbol.dispose]();
    this.#connection = await HttpConnection.open(this.#unix);
  }

  async post(): Promise<Answer> {
    if (this.#connection === undefined) throw new Error("the connection is not open");
    return await this.#connection.send(this.#request);
  }

  [Symbol.dispose](): void {
    this.#connection?.[Symbol.dispose]();
    this.#connection = undefined;
  }
}

interface Pair {
  readonly client: string;
  readonly server: BenchServer;
  readonly count: number;
  /** Of files that lie ready; undefined: none does. */
  readonly reserve?: ReserveWatch;
  readonly ours: Client;
  readonly theirs: Client;
  readonly batches: { readonly ours: number[]; readonly theirs: number[]; readonly isQuiet: boolean }[];
}

async function measure(): Promise<void> {
  await using server = await BenchServer.start();
  await using ready = await BenchServer.start({ settings: { TENSORD_RESERVE_BYTES: String(16 * 2 ** 20) } });
  using trivial = new TrivialServer();
  await trivial.started();
  const pids = [process.pid, server.pid, ready.pid, trivial.pid];
  const clients = await measurePairs(server, ready, trivial, pids);
  const load = await measureLoad(server, trivial, pids);
  report({
    benchmark: "allocate-64k",
    question: "POST of 64 KiB over a trivial POST that validates the same body: its time, its p99, how many a second",
    ratios: [
      ...clients.map(({ client, target, allocate, validate }) => ({
        what: `p50, allocate over validate, by ${client}`,
        ratio: allocate.p50 / validate.p50,
        ...(target === undefined ? {} : { target }),
      })),
      ...clients.slice(0, 2).map(({ client, allocate }) => ({
        what: `allocate, p99 over p50 of one connection, by ${client}`,
        ratio: allocate.p99 / allocate.p50,
        ...(client === "fetch" ? { target: 4 } : {}),
      })),
      {
        what: `validated a second over allocated a second, ${connections} connections of another process`,
        ratio: load.validated / load.allocated,
        target: 4,
      },
    ],
    details: { unit: "µs", batch, clients, load },
  });
}

async function measurePairs(server: BenchServer, ready: BenchServer, trivial: TrivialServer, pids: readonly number[]) {
  using ours = new BareClient(server.socket);
  using theirs = new BareClient(trivial.socket);
  const validate = byFetch(trivial.socket);
  const pairs: (Pair & { readonly target?: number })[] = [
    { client: "fetch", server, count: batch, ours: byFetch(server.socket), theirs: validate, batches: [], target: 2.4 },
    { client: "bare connection", server, count: batch, ours, theirs, batches: [] },
    {
      client: "fetch, of files that lie ready",
      server: ready,
      count: hitBatch,
      reserve: new ReserveWatch(ready),
      ours: byFetch(ready.socket),
      theirs: validate,
      batches: [],
      target: 2,
    },
  ];
  const isEnough = ({ batches }: Pair) => batches.filter(({ isQuiet }) => isQuiet).length >= batchesWanted;
  // The first batches warm all up and are left out.
  for (let tried = -5; tried < batchesTried && !pairs.every(isEnough); tried++) {
    for (const pair of pairs) {
      await pair.reserve?.full();
      const watch = new OthersWatch(pids);
      const { us, ids } = await time(pair.ours, pair.count);
      const other = await time(pair.theirs, pair.count);
      const isQuiet = watch.isQuiet();
      const areHits = pair.reserve === undefined || (await pair.reserve.takeHits()) === pair.count;
      await removeAll(pair.server, ids);
      if (tried >= 0 && areHits) pair.batches.push({ ours: us, theirs: other.us, isQuiet });
    }
  }
  return pairs.map(({ client, target, batches }) => {
    const chosen = chooseQuiet(batches, batchesWanted / 2);
    const allocate = summarize(chosen.flatMap((each) => each.ours));
    const validate = summarize(chosen.flatMap((each) => each.theirs));
    for (const [name, { p50, p99, samples }] of Object.entries({ allocate, validate })) {
      say(`${client.padEnd(30)} ${name}: p50 ${round(p50, 0)} µs, p99 ${round(p99, 0)} µs of ${samples}`);
    }
    return { client, target, allocate, validate };
  });
}

/** How many a second, when eight connections of another process ask as fast as they are answered, in turns. */
async function measureLoad(server: BenchServer, trivial: TrivialServer, pids: readonly number[]) {
  using generator = new LoadGenerator();
  const pieces: { allocated: number; validated: number; generatorShare: number; isQuiet: boolean }[] = [];
  const isEnough = () => pieces.filter(({ isQuiet }) => isQuiet).length >= piecesWanted;
  for (let tried = -1; tried < piecesTried && !isEnough(); tried++) {
    const watch = new OthersWatch([...pids, generator.pid]);
    const ours = await generator.run({ unix: server.socket, connections, count: piece.ours, body });
    const theirs = await generator.run({ unix: trivial.socket, connections, count: piece.theirs, body });
    const isQuiet = watch.isQuiet();
    await removeAll(server, ours.ids);
    if (tried < 0) continue;
    pieces.push({
      allocated: piece.ours / ours.seconds,
      validated: piece.theirs / theirs.seconds,
      generatorShare: theirs.busySeconds / theirs.seconds,
      isQuiet,
    });
  }
  const chosen = chooseQuiet(pieces, piecesWanted / 2);
  const middle = (pick: (each: (typeof pieces)[number]) => number) => median(chosen.map(pick));
  const load = {
    connections,
    allocated: middle(({ allocated }) => allocated),
    validated: middle(({ validated }) => validated),
    /** What the process that asks used of a core while the trivial server answered: at 1 it is what is measured. */
    generatorShare: middle(({ generatorShare }) => generatorShare),
  };
  say(
    `${connections} connections ${round(load.allocated, 0)} allocated and ${round(load.validated, 0)} validated a second`,
  );
  say(`${connections} connections who asks the trivial server used ${round(load.generatorShare)} of a core`);
  return load;
}

async function removeAll(server: BenchServer, ids: readonly string[]): Promise<void> {
  using connection = await HttpConnection.open(server.socket);
  for (const id of ids) await connection.send(toRequest("DELETE", `/v1/regions/${id}`));
}

const [command, unix] = process.argv.slice(2);
if (command === "serve-trivially" && unix !== undefined) serveTrivially(unix);
else if (await findRoom(2 ** 30)) {
  await measure();
  process.exit(0);
}
