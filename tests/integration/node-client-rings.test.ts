/** Rings of other processes that the Node client keeps mapped from one reference to the next. */

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

/** An owner and a reader, two clients of one process; and the permissions of each of the reader's mappings of a ring. */
const parties = `
  const { readFileSync } = await import("node:fs");
  const [owner, reader] = [await connect(), await connect()];
  const send = (reference) => TensorReference.parse(JSON.stringify(reference));
  /** Without the owner's own mapping, which is the one that may write. */
  const mappings = ({ path }) => readFileSync("/proc/self/maps", "utf8").split("\\n")
    .filter((line) => line.includes(path)).map((line) => line.split(" ")[1]).filter((permissions) => permissions !== "rw-s");
`;

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: all references of a ring are read through one mapping, which is reported once`, async () => {
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `${parties}
        const ring = await owner.ring({ slots: 4, slotBytes: 8192, name: "read-${runtime}" });
        const rings = reader.rings();
        await reader.session();
        const values = [];
        let last;
        for (let round = 0; round < 12; round++) {
          last = send(await ring.put(new Float32Array([round, -round])));
          const tensor = rings.open(last);
          values.push(tensor.dtype, ...tensor.array("F32"));
          tensor.close();
        }
        const [first, second] = [rings.open(last), rings.open(send(await ring.put(new Uint8Array(8192).fill(9))))];
        const open = mappings(last);
        first.close();
        second.close();
        const kept = mappings(last);
        const alone = [reader.open(last), reader.open(last)];
        const apart = mappings(last).length;
        for (const tensor of alone) tensor.close();
        let reported;
        do reported = (await owner.get("read-${runtime}")).holders; while (!reported.some(({ writable }) => !writable));
        rings.close();
        // Arrays that are not collected yet keep it.
        while (mappings(last).length > 0) await collect();
        tell({
          values, open, kept, apart, reported: reported.map(({ mappings, writable }) => [mappings, writable]).sort(),
          isClosed: rings.isClosed,
          closed: [await codeOf(() => rings.open(last)), await codeOf(() => first.array())],
        });
      `,
    );
    expect(seen).toEqual({
      values: Array.from({ length: 12 }, (_, round) => ["F32", round, round === 0 ? 0 : -round]).flat(),
      // Read-only to the processor: a page that a stray write made private would show old bytes for ever.
      open: ["r--s"],
      kept: ["r--s"],
      apart: 3,
      reported: [
        [1, false],
        [1, true],
      ],
      isClosed: true,
      closed: ["closed", "closed"],
    });
  });

  claim(
    `${runtime}: a tensor keeps its slot until it is closed or collected, also when the rings are closed`,
    async () => {
      const seen = await runProgram<Record<string, unknown>>(
        runtime,
        server.env,
        `${parties}
        const ring = await owner.ring({ slots: 1, slotBytes: 64 });
        const isFree = () => codeOf(async () => (await ring.acquire({ timeoutMs: 0 })).close());
        const rings = reader.rings();
        const opened = rings.open(send(await ring.put(new Uint8Array([1, 2, 3]))));
        const held = await isFree();
        opened.close();
        const free = await isFree();
        const reference = send(await ring.put(new Uint8Array([4, 5, 6])));
        const kept = {};
        (() => { kept.array = rings.open(reference).array("U8"); })();
        for (let round = 0; round < 10; round++) await collect();
        const byArray = [await isFree(), ...kept.array];
        kept.array = undefined;
        while (await isFree() !== "no error") await collect();
        const stillMapped = mappings(reference).length;
        const last = rings.open(send(await ring.put(new Uint8Array([7]))));
        rings.close();
        const outlives = [await isFree(), last.array("U8")[0], mappings(reference).length];
        last.close();
        while (mappings(reference).length > 0) await collect();
        tell({ held, free, byArray, stillMapped, outlives, end: await isFree() });
      `,
      );
      expect(seen).toEqual({
        held: "deadline-exceeded",
        free: "no error",
        byArray: ["deadline-exceeded", 4, 5, 6],
        stillMapped: 1,
        outlives: ["deadline-exceeded", 7, 1],
        end: "no error",
      });
    },
  );

  claim(`${runtime}: a lent slot is written, a locked one waited for, and a ring that is gone let go of`, async () => {
    const seen = await runProgram<Record<string, unknown>>(
      runtime,
      server.env,
      `${parties}
        const ring = await owner.ring({ slots: 2, slotBytes: 64 });
        const rings = reader.rings();
        const slot = await ring.acquire();
        const array = slot.array("U8", [3]);
        const lent = send(slot.lend());
        const writing = rings.open(lent, { writable: true });
        writing.array("U8").set([1, 2, 3]);
        const busy = [await codeOf(() => rings.open(lent)), await codeOf(() => rings.openWhenFree(lent, { timeoutMs: 1 }))];
        const waiting = rings.openWhenFree(lent);
        writing.close();
        (await waiting).close();
        await slot.takeBack();
        const stale = await codeOf(() => rings.open(lent));
        slot.close();
        const reference = send(await ring.put(new Uint8Array(1)));
        rings.open(reference).close();
        const before = mappings(reference).length;
        await owner.delete(ring);
        const gone = await codeOf(() => rings.open(reference));
        const region = await owner.create(null, new Uint8Array(1));
        const halves = await (await owner.ring({ slots: 1, slotBytes: 64 })).acquire();
        const noArray = await codeOf(() => halves.array("F4", [4]));
        halves.bytes("F4", [4]).set([0x12, 0x34]);
        const four = rings.open(send(halves.publish()));
        tell({
          noArray, four: [four.dtype, ...four.shape, ...four.bytes()],
          written: [...array], busy, stale, before, gone, after: mappings(reference).length,
          ofNoRing: await codeOf(() => rings.open(region.tensor().ref())),
          nothing: await codeOf(() => rings.open({ generation: 1 })),
        });
      `,
    );
    expect(seen).toEqual({
      noArray: "feature-unavailable",
      four: ["F4", 4, 0x12, 0x34],
      written: [1, 2, 3],
      busy: ["deadline-exceeded", "deadline-exceeded"],
      stale: "stale-ref",
      before: 1,
      gone: "stale-ref",
      after: 0,
      ofNoRing: "validation-failed",
      nothing: "validation-failed",
    });
  });
}
