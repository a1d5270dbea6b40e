/** A process of the Node client that may open no more files: it is told what to raise, and loses nothing by it. */

import { describe, expect, test } from "bun:test";
import { NodeProgram, needsNodeClient, prelude, type Runtime, runtimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

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
    }
  },
);
