/** Workers that do what they may not: truncate files, write while a region is sealed, die at the wrong moment. */

import { afterAll, expect } from "bun:test";
import { closeSync, ftruncateSync, openSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks, modes } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, needsRoom, python, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { startServer } from "../harness/server.ts";
import { runScript, WorkerProcess } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;

afterAll(assertNothingLeft);

for (const options of [{}, { checksum: true }]) {
  testWith()(
    `a region that its worker truncated or extended is not sealed (${JSON.stringify(options)}), and can be deleted`,
    async () => {
      await using server = await startServer();
      for (const [name, size] of Object.entries({ empty: 0, short: 4097, page: 3 * MiB - 4096, long: 4 * MiB })) {
        const region = await server.api.create({ name, byte_size: 3 * MiB, ttl_ms: hour });
        truncateSync(region.storage.path, size);
        const problem = await server.api.problem("POST", `/v1/regions/${region.id}/seal`, options);
        expect(problem, name).toMatchObject({ status: 500, code: "io-error" });
        const how = size > region.storage.byte_size ? "extended" : "truncated";
        expect(problem.hint).toStartWith(`A worker ${how} it`);
        expect(problem.hint).toContain("Delete the region");
        expect(await server.api.get(region.id)).toMatchObject({ state: "open", revision: 1 });
        expect(readContent(region.storage.path).mode).toBe(modes.open);
        expect((await server.api.delete(region.id)).state).toBe("deleted");
      }
      await checkBooks(server);
    },
  );
}

testWith()(
  "a region that is truncated and given its size back is whole for the server, and can be sealed",
  async () => {
    await using server = await startServer();
    const region = await server.api.create({ name: "back", byte_size: 3 * MiB, ttl_ms: hour });
    truncateSync(region.storage.path, 0);
    expect((await server.api.problem("POST", `/v1/regions/${region.id}/seal`, { checksum: true })).code).toBe(
      "io-error",
    );
    truncateSync(region.storage.path, region.storage.byte_size);
    expect((await server.api.seal(region.id, { checksum: true })).state).toBe("sealed");
    expect((await server.api.verify(region.id)).ok).toBeTrue();
  },
);

testWith(needsPython)(
  "verify of a sealed region that was truncated is an error, and the region can be deleted",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const region = await server.api.create({ name: "cut", byte_size: 3 * MiB, ttl_ms: hour });
    writeContent(region, 1);
    await server.api.seal(region.id, { checksum: true, stock_writable: true });
    await worker.truncate(region.storage.path, MiB);
    const problem = await server.api.problem("POST", `/v1/regions/${region.id}/verify`);
    expect(problem).toMatchObject({ status: 500, code: "io-error" });
    expect((await server.api.get(region.id)).state).toBe("sealed");
    expect((await server.api.delete(region.id)).state).toBe("deleted");
    await checkBooks(server);
  },
);

testWith()("verify tells content that was changed after the seal from content that was not", async () => {
  await using server = await startServer();
  const region = await server.api.create({ name: "changed", byte_size: 100_000, ttl_ms: hour });
  const sealed = await server.api.seal(region.id, { checksum: true, stock_writable: true });
  writeContent(region, 2);
  const verification = await server.api.verify(region.id);
  expect(verification).toMatchObject({ ok: false, expected: sealed.checksum?.value ?? "" });
  expect(verification.actual).not.toBe(verification.expected);
});

testWith(needsRoom(512 * MiB))(
  "a file that is truncated while the server hashes it is an error or a seal, never the server's death",
  async () => {
    await using server = await startServer();
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    const outcomes = new Set<number>();
    for (let round = 0; round < 12; round++) {
      const region = await server.api.create({ byte_size: 192 * MiB, ttl_ms: hour });
      // A descriptor from before the seal: the mode that follows does not stop it.
      const held = openSync(region.storage.path, "r+");
      const seal = server.api.request("POST", `/v1/regions/${region.id}/seal`, { checksum: true });
      await Bun.sleep(random.integer(0, 40));
      ftruncateSync(held, random.integer(0, 192) * MiB);
      closeSync(held);
      const { status, body } = await seal;
      outcomes.add(status);
      expect(status, JSON.stringify(body)).toBeOneOf([200, 500]);
      if (status === 500) expect(body).toMatchObject({ code: "io-error" });
      expect(await server.api.get(region.id)).toMatchObject({ state: status === 200 ? "sealed" : "open" });
      expect((await server.api.delete(region.id)).state).toBe("deleted");
    }
    expect(outcomes).toContain(500);
    await checkBooks(server);
  },
);

testWith(needsPython)("a writer that arrives while a region is sealed never writes to a sealed region", async () => {
  await using server = await startServer();
  const regions = await Promise.all(
    Array.from({ length: 150 }, (_, at) => server.api.create({ name: `r${at}`, byte_size: 8192, ttl_ms: hour })),
  );
  const task = join(tmpdir(), `tensord-race-${crypto.randomUUID()}.json`);
  writeFileSync(task, JSON.stringify({ socket: server.instance.socket, children: 2, regions }));
  try {
    const raced = await runScript<Raced>(python ?? "", "race_seal.py", task);
    console.log(JSON.stringify(raced));
    expect(raced.late, "no writer's phase reached past its region's seal").toEqual([]);
    expect(raced.children).toEqual([0, 0]);
    // Both sides lost some rounds, or it was no race.
    expect(raced.refused_seals).toBeGreaterThan(10);
    expect(raced.refused_writers).toBeGreaterThan(10);
  } finally {
    rmSync(task);
  }
  for (const { id } of regions) expect((await server.api.verify(id)).ok, `${id} is as it was hashed`).toBeTrue();
  await checkBooks(server);
});

interface Raced {
  readonly late: readonly number[];
  readonly refused_seals: number;
  readonly refused_writers: number;
  readonly children: readonly number[];
}

testWith(needsPython)("a reader that opens a region while it is deleted lets go of it, and it is freed", async () => {
  await using server = await startServer();
  await using worker = new WorkerProcess();
  const region = await server.api.create({ name: "gone", byte_size: 8192, ttl_ms: hour });
  await server.api.delete(region.id);
  expect(await worker.tryAttach(region)).toBe("ENOENT");
  const next = await server.api.create({ name: "gone", byte_size: 8192, ttl_ms: hour });
  // The old descriptor leads nowhere, and never to the new bytes.
  expect(await worker.tryAttach({ ...region, storage: { ...region.storage, path: next.storage.path } })).toBe(
    "another file has the name",
  );
  expect((await server.api.delete(next.id)).state).toBe("deleted");
});
