/** Typed arrays over one buffer are aliases in the region, and come back over one buffer, from the Node client. */

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

/** What a program begins with: how a region made of `data` shares memory, and what the process was warned of. */
const start = `
  const client = await connect({ session: false });
  const warnings = [];
  process.on("warning", ({ name, code, message }) => warnings.push([name, code, message]));
  let made = 0;
  const make = async (data) => await client.create("t" + made++ + process.pid, data, { ttlMs: 600_000 });
  const tiesOf = async (data) => {
    const region = await make(data);
    const { tensors } = region.descriptor;
    const beginOf = (name) => tensors.find((tensor) => tensor.name === name).byteOffset;
    const told = async () => {
      await new Promise((resolve) => setImmediate(resolve));
      return warnings.splice(0).map(([, , message]) => message);
    };
    const aliases = tensors.filter(({ aliasOf }) => aliasOf !== null);
    const ties = aliases.map(({ name, aliasOf, byteOffset }) => [name, aliasOf, byteOffset - beginOf(aliasOf)]);
    return { ties: ties.sort(), told: await told(), byteSize: region.descriptor.storage.byteSize - 4096 };
  };
  const flat = Float32Array.from({ length: 24 }, (_, index) => index);
  const { buffer } = flat;
`;

for (const runtime of usualRuntimes) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: tensors over one buffer are one memory in the region, whole or inside one another`, async () => {
    const seen = await runProgram(
      runtime,
      server.env,
      `
      ${start}
      const shared = new Float32Array(new SharedArrayBuffer(32));
      tell({
        same: await tiesOf({ w: flat, head: { dtype: "F32", shape: [4, 6], data: flat }, again: flat.subarray() }),
        inside: await tiesOf({ row: flat.subarray(6, 12), scalar: { dtype: "F32", shape: [], data: flat.subarray(5, 6) }, w: flat }),
        typed: await tiesOf({ bytes: new Uint8Array(buffer), half: { dtype: "F16", shape: [2], data: new Uint16Array(buffer, 4, 2) } }),
        shared: await tiesOf({ w: shared, last: shared.subarray(7) }),
        apart: await tiesOf({ a: flat.subarray(0, 12), b: flat.subarray(12), c: flat.slice(), none: flat.subarray(3, 3), z: { dtype: "F32", shape: [2] } }),
        pooled: await tiesOf({ a: Buffer.from("one"), b: Buffer.from("two") }),
      });
    `,
    );
    expect(seen).toEqual({
      same: {
        ties: [
          ["again", "w", 0],
          ["head", "w", 0],
        ],
        told: [],
        byteSize: 96,
      },
      inside: {
        ties: [
          ["row", "w", 24],
          ["scalar", "w", 20],
        ],
        told: [],
        byteSize: 96,
      },
      typed: { ties: [["half", "bytes", 4]], told: [], byteSize: 96 },
      shared: { ties: [["last", "w", 28]], told: [], byteSize: 32 },
      apart: { ties: [], told: [], byteSize: 48 + 48 + 96 + 8 },
      pooled: { ties: [], told: [], byteSize: 6 },
    });
  });

  claim(`${runtime}: what overlaps otherwise is copied apart, with one warning that names both`, async () => {
    const seen = await runProgram(
      runtime,
      server.env,
      `
      ${start}
      const bytes = new Uint8Array(buffer);
      await make({ a: flat.subarray(0, 10), b: flat.subarray(5, 15) });
      await new Promise((resolve) => setImmediate(resolve));
      const [first] = warnings.splice(0);
      const many = Object.fromEntries(Array.from({ length: 8 }, (_, at) => ["t" + at, flat.subarray(at, at + 9)]));
      tell({
        first,
        // Of an overlap each has what is inside of it.
        others: await tiesOf({ a: flat.subarray(0, 10), b: flat.subarray(5, 20), c: flat.subarray(12, 18), d: flat.subarray(1, 3) }),
        unaligned: await tiesOf({ w: bytes.subarray(1), f: flat.subarray(2, 4) }),
        gap: await tiesOf({ w: bytes.subarray(0, 23), f: flat.subarray(2, 4) }),
        many: (await tiesOf(many)).told,
      });
    `,
    );
    expect(seen).toMatchObject({
      first: [
        "TensordWarning",
        "copied-apart",
        expect.stringMatching(
          /^Tensors that share memory are copied apart: "a" and "b", which overlap in part\. In the/,
        ),
      ],
      others: {
        ties: [
          ["c", "b", 28],
          ["d", "a", 4],
        ],
        byteSize: 40 + 60,
      },
      unaligned: { ties: [], told: [expect.stringContaining('"w" and "f", whose elements would not be aligned. In')] },
      gap: { ties: [], told: [expect.stringContaining('"w" and "f", whose elements would not be aligned. In')] },
      many: [expect.stringContaining("; and 3 more pairs")],
    });
  });

  claim(
    `${runtime}: what was written comes back over one buffer, and a write by one name is read by the other`,
    async () => {
      const seen = await runProgram(
        runtime,
        server.env,
        `
      ${start}
      const region = await make({ row: flat.subarray(6, 12), w: { dtype: "F32", shape: [4, 6], data: flat }, head: flat });
      const [w, head, row] = ["w", "head", "row"].map((name) => region.tensor(name));
      w.array()[7] = -1;
      const arrays = {
        content: [...row.array("F32")],
        whole: head.array().buffer === w.array().buffer && head.array().length === 24,
        inside: row.array().buffer === w.bytes().buffer && row.bytes().byteOffset === 24 && row.window(4, 4).byteOffset === 28,
        aliases: [w.aliasOf, head.aliasOf, row.aliasOf],
        shown: region[Symbol.for("nodejs.util.inspect.custom")]().match(/"row".*?\\)/)[0],
      };
      await region.seal({ checksum: true });
      const again = await client.attach(region.name);
      arrays.attached = again.tensor("row").array().buffer === again.tensor("w").array().buffer;
      const opened = client.open(row.ref());
      arrays.opened = [opened.aliasOf, ...opened.array("F32")];
      // A region of a region's tensors has its ties.
      const copy = Object.fromEntries([...again.tensors].map(([name, { dtype, shape }]) => [name, { dtype, shape, data: again.tensor(name).bytes() }]));
      arrays.copied = (await tiesOf(copy)).ties;
      tell(arrays);
    `,
      );
      expect(seen).toEqual({
        content: [6, -1, 8, 9, 10, 11],
        whole: true,
        inside: true,
        aliases: [null, "w", "w"],
        shown: '"row": F32 [6] (alias of "w")',
        attached: true,
        opened: [null, 6, -1, 8, 9, 10, 11],
        copied: [
          ["head", "w", 0],
          ["row", "w", 24],
        ],
      });
    },
  );
}
