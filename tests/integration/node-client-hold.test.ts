/** What the Node client tells its server over the hold, and what it tells its user when the session was lost. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import fc from "fast-check";
import {
  countMappings,
  countPassed,
  type Mappings,
  type Report,
  toReports,
} from "../../clients/node/src/session/reports.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runtimes, startProgram } from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

/** A region, and whether it is its maker that maps it; undefined for a server that does not tell makers apart. */
const toKey = (region: string, maker: boolean | undefined) =>
  JSON.stringify(maker === undefined ? [region] : [region, maker]);

/** What the server makes of reports: a region is mapped for writing until the last of its mappings is gone. */
function hear(told: ReadonlyMap<string, Mappings>, reports: readonly Report[]): Map<string, Mappings> {
  const known = new Map(told);
  for (const report of reports) {
    const region = toKey("attach" in report ? report.attach : report.detach, report.maker);
    const { count, isWritable } = known.get(region) ?? { count: 0, isWritable: false };
    if ("attach" in report) known.set(region, { count: count + 1, isWritable: isWritable || report.writable });
    else if (count > 1) known.set(region, { count: count - 1, isWritable });
    else if (count === 1) known.delete(region);
    else throw new Error(`nothing of ${region} is mapped`);
  }
  return known;
}

const mappings = fc
  .array(
    fc.tuple(
      fc.constantFrom(toKey("a", undefined), toKey("a", false), toKey("a", true), toKey("b", false)),
      fc.record({ count: fc.integer({ min: 1, max: 4 }), isWritable: fc.boolean() }),
    ),
  )
  .map((entries) => new Map<string, Mappings>(entries));

const passed = fc
  .array(fc.tuple(fc.constantFrom(toKey("a", false), toKey("b", false)), fc.integer({ min: 1, max: 3 })))
  .map((entries) => new Map<string, number>(entries));

test("after the reports the server knows what is mapped, whatever it knew; and nothing is told twice", () => {
  const sorted = (all: ReadonlyMap<string, Mappings>) => [...all].toSorted(([a], [b]) => a.localeCompare(b));
  fc.assert(
    fc.property(mappings, mappings, passed, (told, now, ended) => {
      expect(sorted(hear(told, toReports(told, now, ended)))).toEqual(sorted(now));
      expect(toReports(now, now)).toEqual([]);
    }),
  );
});

const aMapping = { region: "a", isWritable: false, isMakers: false, isHandOffs: true };

test("what passed untold is told each time, or once if it was mapped by reference, and is no end while others stay", () => {
  const ended = [aMapping, aMapping, ...Array(3).fill({ ...aMapping, region: "b", isHandOffs: undefined })];
  const passed = countPassed(ended, true);
  const pair = (region: string) => [
    { attach: region, writable: false, maker: false },
    { detach: region, maker: false },
  ];
  expect(toReports(new Map(), new Map(), passed)).toEqual([...pair("a"), ...pair("a"), ...pair("b")]);
  const [first, ...others] = toReports(new Map(), countMappings([aMapping], true), countPassed([aMapping], true));
  expect([first, ...others]).toEqual([{ attach: "a", writable: false, maker: false }, ...pair("a")]);
});

test("a server that knows no makers is told of none", () => {
  const now = countMappings([{ ...aMapping, isMakers: true }], false);
  expect(toReports(new Map(), now)).toEqual([{ attach: "a", writable: false }]);
});

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsNodeClient);

  claim(`${runtime}: what is mapped and let go of in one moment is told once, as what came of it`, async () => {
    await using proxy = await new SocketProxy(server.instance.socket).listening();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect({ url: "${proxy.url}" });
        // Kept, or it may be collected and its mapping with it.
        globalThis.made = await client.create("often-${runtime}", new Uint8Array(1));
        const { descriptor } = made;
        tell("made");
        await receive();
        for (let round = 0; round < 500; round++) (await client.attach(descriptor)).close();
        globalThis.kept = [await client.attach(descriptor), await client.attach(descriptor)];
        tell("mapped");
        await receive();
      `,
    );
    expect(await program.hear()).toBe("made");
    const holds = async (mappings: number) => {
      const region = await server.api.findByName(`often-${runtime}`);
      return region?.holders.some((holder) => holder.mappings === mappings && holder.writable);
    };
    await until("its first mapping is told", () => holds(1));
    const askedBytes = proxy.askedBytes;
    await program.say("go on");
    expect(await program.hear()).toBe("mapped");
    await until("what is left is told", () => holds(3));
    // 500 times two frames of some 60 bytes would be more than 50,000.
    expect(proxy.askedBytes - askedBytes).toBeLessThan(2_000);
  });

  claim(`${runtime}: who lost its session is told, by a warning unless it wants to hear, and no other`, async () => {
    await using program = startProgram(
      runtime,
      server.env,
      `
        const heard = [];
        process.on("warning", ({ name, code, message }) => {
          if (name === "TensordWarning") heard.push(["warned", code, message.split(" has ended")[0]]);
        });
        const onLost = ({ code, detail, hint, fields }) => heard.push(["called", code, detail, typeof hint, fields]);
        const [quiet, warned, asked] = [await connect({ session: { onLost } }), await connect(), await connect({ session: { onLost } })];
        await quiet.session();
        await quiet.endSession();
        await quiet.session();
        quiet.close();
        const region = await warned.create(null, new Uint8Array([7]));
        tell([(await warned.session()).id, (await asked.session()).id]);
        await receive();
        while (heard.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
        tell(heard.sort());
        tell([region.tensor().array("U8")[0], (await warned.session()).id, (await asked.session()).id]);
        await receive();
      `,
    );
    const ids = await program.hear<[string, string]>();
    for (const id of ids) await server.api.call("DELETE", `/v1/sessions/${id}`);
    await program.say("both are ended");
    expect(await program.hear<unknown[]>()).toEqual([
      [
        "called",
        "session-not-found",
        `Session ${ids[1]} has ended without this process, and with it what it owned`,
        "string",
        { session: ids[1] },
      ],
      ["warned", "session-not-found", `Session ${ids[0]}`],
    ]);
    const [content, ...next] = await program.hear<[number, string, string]>();
    expect(content).toBe(7);
    expect(next.filter((id) => ids.includes(id))).toEqual([]);
  });
}
