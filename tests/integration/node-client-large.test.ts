/** Tensors too large for one turn of the event loop, and for one typed array. */

import { afterAll, expect } from "bun:test";
import { needsRoom, needsStockPython, testWith } from "../harness/instance-needs.ts";
import { takeRoom } from "../harness/instance-room.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runPython, runtimes } from "../harness/node-program.ts";

const GiB = 2 ** 30;

afterAll(endLentServers);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient, needsStockPython)(
    `${runtime}: content of many windows arrives whole, and lets others have the event loop`,
    async () => {
      await using server = await lendServer();
      const turns = await runProgram(
        runtime,
        server.env,
        `
          const client = await connect();
          const data = new Uint32Array(6_000_001);
          for (let index = 0; index < data.length; index++) data[index] = Math.imul(index, 2654435761);
          let turns = 0;
          const count = () => {
            turns += 1;
            turning = setImmediate(count);
          };
          let turning = setImmediate(count);
          const region = await client.create("large", data, { ttlMs: 600_000 });
          clearImmediate(turning);
          await region.seal();
          tell(turns);
        `,
      );
      expect(turns).toBeGreaterThan(2);
      const isWhole = await runPython(
        server.env,
        `
          large = tensord.attach("large").numpy()
          tell(bool(np.array_equal(large, np.arange(6_000_001, dtype=np.uint32) * np.uint32(2654435761))))
        `,
      );
      expect(isWhole).toBe(true);
    },
  );

  testWith(needsNodeClient, needsRoom(5 * GiB))(
    `${runtime}: a tensor above 4 GiB is refused as one array, and gone through in windows`,
    async () => {
      using _room = await takeRoom();
      await using server = await lendServer();
      const seen = await runProgram(
        runtime,
        server.env,
        `
          const client = await connect();
          const size = 2 ** 32 + 4096;
          const region = await client.create("large", { dtype: "U8", shape: [size] }, { ttlMs: 600_000 });
          const tensor = region.tensor();
          tensor.window(0, 4)[0] = 1;
          tensor.window(size - 4, 4)[3] = 9;
          await region.seal();
          region.close();
          const reader = (await client.attach("large")).tensor();
          tell({
            array: await codeOf(() => reader.array()),
            bytes: await codeOf(() => reader.bytes()),
            past: await codeOf(() => reader.window(size - 4, 5)),
            first: Array.from(reader.window(0, 4)),
            last: Array.from(reader.window(size - 4, 4)),
            whole: reader.window(1, 2 ** 32 - 1).length,
          });
          await client.delete(region);
          process.exit();
        `,
      );
      expect(seen).toEqual({
        array: "feature-unavailable",
        bytes: "feature-unavailable",
        past: "validation-failed",
        first: [1, 0, 0, 0],
        last: [0, 0, 0, 9],
        whole: 2 ** 32 - 1,
      });
    },
  );
}
