/** Operations as the Node client follows them: copies that the server makes, waited for, listed, cancelled, and what they fail with. */

import { afterAll, expect } from "bun:test";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(endLentServers);

const make = `
  const client = await connect();
  const source = await client.create("weights", { w: new Float32Array(1000).fill(2), b: new Float64Array(3) }, { ttlMs: 600_000 });
  await source.seal({ checksum: true });
`;

for (const runtime of usualRuntimes) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: a copy has the tensors of its source in another storage, and tells of its progress`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${make}
        const kinds = [];
        const told = [];
        for (const storage of ["shm", "memfd", "heap"]) {
          const operation = await client.copy(source, { name: "copy-" + storage, storage, ttlMs: 600_000 });
          const copy = await operation.wait({ timeoutMs: 180_000, onProgress: (...bytes) => told.push(bytes) });
          const region = await client.attach("copy-" + storage);
          kinds.push([copy.storage.kind, copy.state, copy.checksum.value === source.descriptor.checksum.value]);
          kinds.push([region.tensor("w").array().every((value) => value === 2), operation.state, operation.error === undefined]);
        }
        tell({ kinds, isWhole: told.every(([done, total]) => done <= total) });
      `,
    );
    const whole = [true, "succeeded", true];
    expect(seen).toEqual({
      kinds: [["shm", "sealed", true], whole, ["memfd", "sealed", true], whole, ["heap", "sealed", true], whole],
      isWhole: true,
    });
  });

  test(`${runtime}: what a copy fails with is thrown by its wait, and what is wrong at once by the call`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${make}
        const operation = await client.copy(source, { name: "weights", ttlMs: 600_000 });
        const codes = [await codeOf(() => operation.wait())];
        const open = await client.create(null, new Uint8Array(8), { ttlMs: 600_000 });
        codes.push(await codeOf(() => client.copy(open, { ttlMs: 600_000 })));
        codes.push(await codeOf(() => client.copy(source, { ttlMs: 600_000, device: "GPU-none" })));
        codes.push(await codeOf(() => client.copy(source, { device: "GPU-none", storage: "shm" })));
        codes.push(await codeOf(() => client.operation("op_" + "a".repeat(26))));
        tell({ codes, state: operation.state, error: operation.error.code });
      `,
    );
    expect(seen).toEqual({
      codes: ["name-taken", "region-not-sealed", "storage-unavailable", "validation-failed", "operation-not-found"],
      state: "failed",
      error: "name-taken",
    });
  });

  test(`${runtime}: operations are listed, found and cancelled, and one without an owner ends with the session`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${make}
        const operation = await client.copy(source);
        const copy = await operation.wait();
        const listed = [];
        for await (const each of client.operations({ model: "default", state: "succeeded" })) listed.push(each.id);
        const found = await client.operation(operation.id);
        await operation.cancel();
        const owner = copy.owner.kind;
        await client.endSession();
        const gone = await codeOf(() => client.getById(copy.id));
        tell({ isListed: listed.includes(operation.id), state: operation.state, found: (await found.refresh()).id === operation.id, owner, gone });
      `,
    );
    expect(seen).toEqual({
      isListed: true,
      state: "succeeded",
      found: true,
      owner: "session",
      gone: "region-not-found",
    });
  });

  testWith(needsNodeClient, needsStandIn)(
    `${runtime}: a region is copied to a device, on the stand-in driver, and a wait for a copy that hangs ends in time`,
    async () => {
      await using cuda = new CudaStandIn();
      await using server = await startServer({ env: cuda.env });
      const device = standInUuid(0);
      const seen = await runProgram(
        runtime,
        server.env,
        `${make}
          const copied = await (await client.copy(source, { device: "${device}", ttlMs: 600_000 })).wait();
          const { ok } = await client.verify(copied.id);
          tell({ storage: copied.storage.kind, device: copied.storage.deviceUuid, ok });
        `,
      );
      expect(seen).toEqual({ storage: "cuda_vmm", device, ok: true });
      cuda.order("cuEventSynchronize 1 hang");
      const late = await runProgram(
        runtime,
        server.env,
        `
          const client = await connect();
          const operation = await client.copy(await client.get("weights"), { device: "${device}", ttlMs: 600_000 });
          const codes = [await codeOf(() => operation.wait({ timeoutMs: 300 }))];
          await operation.cancel();
          codes.push(operation.state, await codeOf(() => operation.wait()));
          tell(codes);
        `,
      );
      expect(late).toEqual(["deadline-exceeded", "cancelled", "cancelled"]);
    },
  );
}
