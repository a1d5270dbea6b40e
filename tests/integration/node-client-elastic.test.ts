/** Elastic pools as the Node client has them: made, mapped, told of and deleted by request. On the stand-in driver: no card was seen. */

import { afterAll, expect } from "bun:test";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

const test = testWith(needsNodeClient ?? needsStandIn);

const program = `
  const client = await connect();
  const page = 2 ** 21;
  const pool = client.pool("default", ${JSON.stringify(standInUuid(0))});
  const codes = [await codeOf(() => pool.describe())];
  const made = await pool.create({ virtualCapacity: 16 * page, pageSize: page });
  codes.push(await codeOf(() => pool.create({ virtualCapacity: 16 * page, pageSize: 2 * page })));
  const { run, sequence } = await pool.map(2 * page, { byteOffset: page, evictable: true });
  codes.push(await codeOf(() => pool.map(page, { byteOffset: page })));
  const events = [];
  const following = (async () => {
    for await (const event of pool.events({ after: made.sequence })) {
      events.push(event);
      if (events.length === 3) return;
    }
  })();
  const operation = await pool.unmap(page, page);
  const ended = [await operation.wait(), operation.state, operation.doneBytes];
  const { moves } = await pool.compact();
  await following;
  const { isMapped } = await pool.describe({ byteOffset: 0, byteSize: page });
  const changed = await pool.change({ maximumBytes: 4 * page, ifMatch: made.revision });
  const listed = [];
  for await (const each of client.pools({ model: "default" })) listed.push(each);
  const trimmed = await pool.trim();
  const deleted = await pool.delete();
  codes.push(await codeOf(() => pool.trim()));
  tell({
    codes, made, run, isFirst: events[0].id === sequence, ended: [ended[0] === undefined, ...ended.slice(1)], moves, isMapped, changed,
    types: events.map(({ type, data }) => [type, data.pool === made.id]), listed, trimmed, deleted, shown: String(pool.model),
  });
  await client.close();
`;

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  test(`${runtime}: a pool is made, mapped, followed, compacted, trimmed and deleted, and refusals have codes`, async () => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    const seen = await runProgram<Record<string, unknown>>(runtime, server.env, program);
    const page = 2 ** 21;
    expect(seen).toMatchObject({
      codes: ["vmm-pool-not-found", "vmm-pool-exists", "already-mapped", "vmm-pool-not-found"],
      made: { virtualCapacity: 16 * page, pageSize: page, runs: [], workers: [], revision: 1 },
      run: { byteOffset: page, byteSize: 2 * page, firstPage: 1, evictable: true },
      isFirst: true,
      ended: [true, "succeeded", page],
      moves: [{ fromByteOffset: 2 * page, toByteOffset: 0, byteSize: page, firstPage: 2 }],
      isMapped: true,
      changed: { maximumBytes: 4 * page, revision: 2 },
      types: [
        ["tensord.vmm.mapped", true],
        ["tensord.vmm.unmapped", true],
        ["tensord.vmm.moved", true],
      ],
      trimmed: { freedBytes: page },
      deleted: { state: "deleted", freedBytes: 0 },
    });
    expect(seen.listed).toMatchObject([{ model: "default", mappedBytes: page }]);
  });
}
