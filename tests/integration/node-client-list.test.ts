/** The Node client's lists of the regions of one session, among those of others. */

import { afterAll, beforeAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

for (const runtime of usualRuntimes) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: leases(region) has all leases by request, over pages`, async () => {
    const region = await server.api.create({ name: `leased-${runtime}`, byte_size: 8, ttl_ms: 3_600_000 });
    for (let index = 0; index < 1001; index++) {
      await server.api.call("POST", `/v1/regions/${region.id}/leases`, { ttl_ms: 60_000 + index });
    }
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect({ session: false });
        const region = await client.get("leased-${runtime}");
        const found = [];
        for await (const lease of client.leases(region)) found.push(lease);
        tell({ ttls: found.map(({ ttlMs }) => ttlMs), regions: [...new Set(found.map(({ region }) => region))] });
      `,
    );
    const ttls = Array.from({ length: 1001 }, (_, index) => 60_000 + index);
    expect(seen).toEqual({ ttls, regions: [region.id] });
  });

  claim(`${runtime}: a region has as many tensors as a mixture of experts, each at its place`, async () => {
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const count = 31_337;
        const names = Array.from({ length: count }, (_, index) => "layers." + (index >> 7) + ".experts." + index);
        const data = Object.fromEntries(names.map((name, index) => [name, Uint16Array.of(index, index >> 16, 0, 7)]));
        const made = await client.create("experts-${runtime}", data);
        await made.seal();
        const region = await client.attach("experts-${runtime}");
        // A view of each costs a quarter of a millisecond.
        const looked = names.map((name, index) => [name, index]).filter(([, index]) => index % 61 === 0 || index === count - 1);
        const wrong = looked.filter(([name, index]) => region.tensor(name).array()[0] !== (index & 0xffff));
        tell({ count: region.tensors.size, sameOrder: [...region.tensors.keys()].every((name, at) => name === names[at]), wrong });
      `,
    );
    expect(seen).toEqual({ count: 31_337, sameOrder: true, wrong: [] });
  });

  claim(`${runtime}: list({ session }) has what ends with that session, and nobody else's regions`, async () => {
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const [one, other] = [await connect(), await connect()];
        await one.create("mine-${runtime}", new Uint8Array(1), { labels: { part: "a" } });
        await one.create(null, new Uint8Array(1), { labels: { part: "b" } });
        await one.create("own-${runtime}", new Uint8Array(1), { ttlMs: 60_000 });
        await other.create("others-${runtime}", new Uint8Array(1));
        const names = async (options) => {
          const found = [];
          for await (const { name } of other.list(options)) found.push(name);
          return found.sort();
        };
        const [session, second] = [await one.session(), await other.session()];
        tell({
          first: await names({ session }),
          second: await names({ session: second }),
          both: await names({ session: session.id, label: ["part", "b"] }),
        });
      `,
    );
    expect(seen).toEqual({
      first: [`mine-${runtime}`, null].toSorted(),
      second: [`others-${runtime}`],
      both: [null],
    });
  });
}
