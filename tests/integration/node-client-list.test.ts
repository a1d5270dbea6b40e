/** The Node client's lists of the regions of one session, among those of others. */

import { afterAll, beforeAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

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
