/** The Node client's limits and evictions by pool: the host's, and that of a device, on the stand-in driver. */

import { expect } from "bun:test";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

const MiB = 2 ** 20;
const device = standInUuid(0);

testWith(needsNodeClient ?? needsStandIn)("a model's limits are changed, and room is made, pool by pool", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  for (const runtime of usualRuntimes) {
    const model = `small-${runtime}`;
    const onDevice = { model, storage: "cuda_vmm" as const, byte_size: 2 * MiB, ttl_ms: 3_600_000, evictable: true };
    const program = `
      const client = await connect({ session: false });
      const limitsOf = ({ pools }) => pools.map(({ pool, limitBytes }) => [pool, limitBytes]);
      const changed = (limits) => client.changeModel("${model}", { limits }).then(limitsOf);
      const made = await client.registerModel("${model}", { limits: { host: ${MiB}, "${device}": ${4 * MiB} } });
      const seen = [limitsOf(made), await changed({ "${device}": null }), await changed({ host: 5, "${device}": ${2 * MiB} })];
      const host = await client.changeModel("${model}", { memoryLimitBytes: null });
      const codes = [await codeOf(() => client.changeModel("${model}", {})), await codeOf(() => changed({ "GPU-1": 1 }))];
      codes.push(await codeOf(() => changed({ host: -1 })), await codeOf(() => client.evict(1, { pool: "GPU-1" })));
      tell([...seen, limitsOf(host), codes]);
    `;
    expect(await runProgram(runtime, server.env, program)).toEqual([
      ...[
        [
          ["host", MiB],
          [device, 4 * MiB],
        ],
      ],
      [
        ["host", MiB],
        [device, null],
      ],
      [
        ["host", 5],
        [device, 2 * MiB],
      ],
      [
        ["host", null],
        [device, 2 * MiB],
      ],
      Array.from({ length: 4 }, () => "validation-failed"),
    ]);
    const { id } = await server.api.create(onDevice);
    await server.api.seal(id);
    const evicting = `
      const client = await connect({ session: false });
      const wanted = { model: "${model}", dryRun: true };
      const free = (pool) => client.evict(2 ** 40, { ...wanted, pool }).then(({ evicted, kept }) => [...evicted, ...kept].map(({ region }) => region));
      tell([await free(undefined), await free("host"), await free("${device}")]);
    `;
    expect(await runProgram(runtime, server.env, evicting)).toEqual([[], [], [id]]);
    await server.api.delete(id);
  }
});
