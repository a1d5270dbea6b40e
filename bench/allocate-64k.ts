/**
 * What does an allocation cost beyond the request that carries it? POST of 64 KiB to the server, over a POST of the same
 * body to a server that validates it with the same libraries and answers at once, in alternating batches. Asked by
 * `fetch`, as a worker would, and by a bare connection that costs next to nothing and so shows the servers alone.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import { CreateRegion } from "../src/routes/schemas/requests.ts";
import { type Answer, HttpConnection, toRequest } from "./lib/http-connection.ts";
import { round } from "./lib/machine.ts";
import { bun } from "./lib/places.ts";
import { report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const batch = 200;
const batchesWanted = 20;
const batchesTried = 5 * batchesWanted;
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

  [Symbol.dispose](): void {
    this.#process.kill();
    rmSync(this.#folder, { recursive: true });
  }
}

/** Sends the POST once. */
type Post = () => Promise<Answer>;

/** Times `post` for a batch. @returns the µs of each, and the ids that were answered. */
async function time(post: Post): Promise<{ us: number[]; ids: string[] }> {
  const us: number[] = [];
  const answers: Answer[] = [];
  for (let index = 0; index < batch; index++) {
    const begin = performance.now();
    answers.push(await post());
    us.push((performance.now() - begin) * 1000);
  }
  const failed = answers.find(({ status }) => status !== 201);
  if (failed !== undefined) throw new Error(`answered ${failed.status}: ${failed.body}`);
  return { us, ids: answers.map((answer) => (JSON.parse(answer.body) as { id: string }).id) };
}

function byFetch(unix: string): Post {
  const init = { unix, method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return async () => {
    const response = await fetch("http://localhost/v1/regions", init);
    return { status: response.status, body: await response.text() };
  };
}

interface Pair {
  readonly client: string;
  readonly ours: Post;
  readonly theirs: Post;
  readonly batches: { readonly ours: number[]; readonly theirs: number[]; readonly isQuiet: boolean }[];
}

async function measure(): Promise<void> {
  await using server = await BenchServer.start();
  using trivial = new TrivialServer();
  using ours = await HttpConnection.open(server.socket);
  using theirs = await connectPatiently(trivial.socket);
  const request = toRequest("POST", "/v1/regions", body);
  const pairs: Pair[] = [
    { client: "fetch", ours: byFetch(server.socket), theirs: byFetch(trivial.socket), batches: [] },
    { client: "bare connection", ours: () => ours.send(request), theirs: () => theirs.send(request), batches: [] },
  ];
  const isEnough = ({ batches }: Pair) => batches.filter(({ isQuiet }) => isQuiet).length >= batchesWanted;
  // The first batches warm both up and are left out.
  for (let tried = -5; tried < batchesTried && !pairs.every(isEnough); tried++) {
    for (const pair of pairs) {
      const watch = new OthersWatch([process.pid, server.pid, trivial.pid]);
      const { us, ids } = await time(pair.ours);
      const other = await time(pair.theirs);
      const isQuiet = watch.isQuiet();
      for (const id of ids) await ours.send(toRequest("DELETE", `/v1/regions/${id}`));
      if (tried >= 0) pair.batches.push({ ours: us, theirs: other.us, isQuiet });
    }
  }
  const details = pairs.map(({ client, batches }) => {
    const chosen = chooseQuiet(batches, batchesWanted / 2);
    const allocate = summarize(chosen.flatMap((piece) => piece.ours));
    const validate = summarize(chosen.flatMap((piece) => piece.theirs));
    for (const [name, { p50, p99, samples }] of Object.entries({ allocate, validate })) {
      say(`${client.padEnd(15)} ${name}: p50 ${round(p50, 0)} µs, p99 ${round(p99, 0)} µs of ${samples}`);
    }
    return { client, allocate, validate };
  });
  report({
    benchmark: "allocate-64k",
    question: "POST of 64 KiB (miss path) over a trivial POST that validates the same body",
    ratios: details.map(({ client, allocate, validate }) => ({
      what: `p50, allocate over validate, by ${client}`,
      ratio: allocate.p50 / validate.p50,
      ...(client === "fetch" ? { target: 2.4 } : {}),
    })),
    details: { unit: "µs", batch, clients: details },
  });
}

async function connectPatiently(unix: string): Promise<HttpConnection> {
  for (let tries = 0; ; tries++) {
    try {
      return await HttpConnection.open(unix);
    } catch (error) {
      if (tries > 500) throw error;
      await Bun.sleep(10);
    }
  }
}

const [command, unix] = process.argv.slice(2);
if (command === "serve-trivially" && unix !== undefined) serveTrivially(unix);
else if (await findRoom(2 ** 30)) {
  await measure();
  process.exit(0);
}
