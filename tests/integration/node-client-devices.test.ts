/** Devices as the Node client tells of them, and a creation that waits for their driver. On the stand-in driver: no card was seen. */

import { afterAll, expect } from "bun:test";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

const test = testWith(needsNodeClient ?? needsStandIn);

const program = `
  const client = await connect();
  const { items, ...list } = await client.devices();
  const one = await client.device(items[0].uuid);
  tell([items, list, one, await codeOf(() => client.device("GPU-0"))]);
  await client.close();
`;

for (const runtime of usualRuntimes) {
  test(`${runtime}: devices are typed records, and one that is not there has a code`, async () => {
    await using cuda = new CudaStandIn({ devices: [{}, { computeMode: 2 }] });
    await using server = await startServer({ env: cuda.env });
    type Told = readonly [readonly object[], object, object, string];
    const [items, list, one, code] = await runProgram<Told>(runtime, server.env, program);
    expect(one).toEqual(items[0] as object);
    expect(items).toMatchObject([
      { uuid: standInUuid(0), computeCapability: "9.0", allocatedBytes: 0, freeBytes: null, usable: true },
      { uuid: standInUuid(1), usable: false, reason: "compute-mode-prohibited" },
    ]);
    expect(list).toMatchObject({ cudaVersion: "13.0", reason: null });
    expect(code).toBe("device-not-found");
  });
}
