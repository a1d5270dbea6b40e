/**
 * The Node client where no descriptor is free: a process of its own that may open no more files is told what to raise, and one
 * whose server has none for a moment asks again. Neither loses anything by it.
 */

import { describe, expect, test } from "bun:test";
import {
  NodeProgram,
  needsNodeClient,
  prelude,
  type Runtime,
  runtimes,
  startProgram,
} from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

const source = `
  import { closeSync, openSync, readdirSync } from "node:fs";
  const taken = [];
  const takeAll = () => {
    try {
      for (;;) taken.push(openSync("/dev/null", "r"));
    } catch (error) {
      if (error.code !== "EMFILE") throw error;
    }
  };
  const giveBack = () => {
    for (const fd of taken.splice(0)) closeSync(fd);
  };
  const failureOf = async (action) => {
    takeAll();
    try {
      await action();
    } catch (error) {
      return { code: error.code, message: error.message, isOurs: isTensordError(error) };
    } finally {
      giveBack();
    }
  };
  const client = await connect();
  const region = await client.create("few", new Float32Array(4), { ttlMs: 3_600_000 });
  const reference = region.tensor("data").ref();
  region.close();
  const open = () => readdirSync("/proc/self/fd").length;
  const before = open();
  const failures = [];
  for (let attempt = 0; attempt < 3; attempt++) {
    failures.push(await failureOf(() => client.open(reference)));
    failures.push(await failureOf(() => client.create("more" + attempt, new Float32Array(4), { ttlMs: 3_600_000 })));
  }
  const after = open();
  const tensor = await client.open(reference);
  tell({ failures, grown: after - before, values: [...tensor.array("F32")] });
  client.close();
`;

/** What a server without a descriptor answers. */
const refusal = toAnswer({ status: 507, code: "out-of-descriptors", detail: "Cannot answer: no file descriptor left" });

/** What one answers that waits for a device's driver itself. */
const notYet = toAnswer({ status: 503, code: "not-ready", detail: "Cannot choose a device: not yet" });

function toAnswer(problem: { readonly status: number; readonly code: string; readonly detail: string }): string {
  const body = JSON.stringify(problem);
  const headers = ["Content-Type: application/problem+json", `Content-Length: ${body.length}`, "Connection: close"];
  return `${[`HTTP/1.1 ${problem.status} X`, ...headers].join("\r\n")}\r\n\r\n${body}`;
}

/** Refuses the first requests of each kind, and counts them. */
class Refuser {
  readonly counts = new Map<string, number>();
  most = 2;

  refuse(request: string): string | undefined {
    const kind = request.slice(0, request.search(/ HTTP|\?/)).replace(/ses_\w+/, "…");
    const count = (this.counts.get(kind) ?? 0) + 1;
    this.counts.set(kind, count);
    if (count === 2) return notYet;
    return count <= this.most ? refusal : undefined;
  }
}

describe.skipIf(needsNodeClient !== undefined)(
  `without a descriptor (${needsNodeClient ?? "the client is built"})`,
  () => {
    for (const runtime of Object.keys(runtimes) as Runtime[]) {
      test(`a process of ${runtime} hears what to raise, leaks nothing, and goes on`, async () => {
        await using server = await startServer();
        const limited = ["sh", "-c", 'ulimit -n 64 && exec "$0" "$@"', ...runtimes[runtime], prelude + source];
        await using program = new NodeProgram(limited, server.env);
        const { failures, grown, values } = await program.hear<{
          failures: ({ code: string; message: string; isOurs: boolean } | null)[];
          grown: number;
          values: number[];
        }>();
        // Where the runtime keeps connections of its own, a request may go over one of them.
        const told = failures.filter((failure, index) => index % 2 === 0 || runtime === "node" || failure !== null);
        for (const { code, message, isOurs } of told.map(
          (failure) => failure ?? { code: "", message: "", isOurs: false },
        )) {
          expect({ code, isOurs }).toEqual({ code: "out-of-descriptors", isOurs: true });
          expect(message).toMatch(/^Cannot (open region reg_|connect to unix:)/);
          expect(message).toContain("(EMFILE)");
          expect(message).toContain("ulimit -n");
        }
        expect(failures).toHaveLength(6);
        // Connections that were kept meanwhile may have gone.
        expect(grown).toBeLessThanOrEqual(1);
        expect(values).toEqual([0, 0, 0, 0]);
        await program.end();
      });

      test(`a process of ${runtime} asks a server again that has none for a moment, whatever it asks`, async () => {
        const refuser = new Refuser();
        await using server = await startServer();
        const options = { refuse: (request: string) => refuser.refuse(request) };
        await using proxy = await new SocketProxy(server.instance.socket, options).listening();
        await using program = startProgram(
          runtime,
          { ...server.env, TENSORD_URL: proxy.url },
          `
            const client = await connect({ retryMs: 3_600_000 });
            const stream = client.events({ reconnect: false });
            const first = stream[Symbol.asyncIterator]().next();
            const region = await client.create("few", new Float32Array(4));
            await client.stats();
            tell((await first).value.type);
            const resumed = client.events();
            const next = resumed[Symbol.asyncIterator]().next();
            while (resumed.after === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
            tell("following");
            await receive();
            await client.change(region, { labels: { seen: "yes" } });
            tell((await next).value.type);
            const hasty = await connect({ retryMs: 1 });
            await receive();
            tell(await codeOf(() => hasty.stats()));
            tell(await codeOf(() => hasty.events()[Symbol.asyncIterator]().next()));
            client.close();
            hasty.close();
          `,
        );
        expect(await program.hear()).toMatch(/^tensord\.(session|region)\./);
        // What cannot be repeated after a lost answer is among them: of a refused one nothing was done.
        const kinds = [
          "POST /v1/regions",
          "POST /v1/sessions",
          "GET /v1/sessions/…/hold",
          "GET /v1/events/ws",
          "GET /v1/stats",
        ];
        expect([...refuser.counts.keys()]).toEqual(expect.arrayContaining(kinds));
        for (const kind of kinds) expect(refuser.counts.get(kind), kind).toBeGreaterThan(refuser.most);
        expect(await program.hear()).toBe("following");
        // Those that stay come back to a server that refuses them.
        refuser.counts.clear();
        refuser.most = 1;
        await server.stop();
        await server.start();
        for (const kind of kinds.slice(2, 4)) await until(kind, () => (refuser.counts.get(kind) ?? 0) > refuser.most);
        await program.say("go on");
        expect(await program.hear()).toBe("tensord.region.changed");
        // In the end it is believed.
        refuser.most = Number.POSITIVE_INFINITY;
        await program.say("go on");
        expect(await program.hear()).toBe("out-of-descriptors");
        expect(await program.hear()).toBe("out-of-descriptors");
        await program.end();
      });
    }
  },
);
