/** Rings that tell by themselves what comes: messages, requests and answers between processes, without a socket and without the server. */

import { afterAll, expect, test as plainTest } from "bun:test";
import { parseRecord, toRecord } from "../../clients/node/src/rings/answer-record.ts";
import { parseHeader, toBellLayout, toHeader } from "../../clients/node/src/rings/bell-layout.ts";
import { keyOf, pack, packedBytes, toMark, unpack } from "../../clients/node/src/rings/packed.ts";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import vectors from "../vectors/ring-layout-2.json" with { type: "json" };

afterAll(endLentServers);

const fromHex = (text: string) => Buffer.from(text, "hex");
const codeOf = (action: () => unknown) => {
  try {
    action();
  } catch (error) {
    return (error as { code?: string }).code;
  }
  return "no error";
};

plainTest("packed references, records and layouts are those of the vectors", () => {
  for (const {
    hex,
    dtype,
    shape,
    kind,
    generation,
    byte_offset: byteOffset,
    byte_size: byteSize,
    ...of
  } of vectors.packed) {
    const said = { dtype, shape, kind, generation, byteOffset, byteSize };
    const found = unpack(fromHex(hex));
    expect({ ...found, dev: String(found.dev), ino: String(found.ino) } as object).toEqual({
      ...said,
      dev: of.dev,
      ino: of.ino,
      region: toMark(of.region),
    });
    expect(pack(found).toString("hex")).toBe(hex);
  }
  for (const { hex } of vectors.refused) expect(codeOf(() => unpack(fromHex(hex)))).toBe("validation-failed");
  for (const { region, hex } of vectors.region_marks) expect(toMark(region)).toBe(hex);
  for (const { slots, slot_bytes: slotBytes, header, ...said } of vectors.geometry) {
    const layout = toBellLayout(slots, slotBytes);
    const { entries, byteOffset, byteSize, base, tail, wanted, firstEntry, firstRecord } = layout;
    expect({
      entries,
      bell_byte_offset: byteOffset,
      bell_byte_size: byteSize,
      base,
      tail,
      wanted,
      first_entry: firstEntry,
      last_entry: firstEntry + packedBytes * (entries - 1),
      first_record: firstRecord,
      last_record: firstRecord + packedBytes * (slots - 1),
    }).toEqual(said);
    const raw = toHeader(layout);
    expect(header.startsWith(raw.toString("hex"))).toBe(true);
    expect(parseHeader(raw, byteOffset, byteSize, "reg_x")).toEqual(layout);
    for (const [at, value, code] of [
      [0, 0, "validation-failed"],
      [4, 1, "validation-failed"],
      [4, 3, "feature-unavailable"],
    ] as const) {
      const other = Buffer.from(raw);
      other.writeUInt32LE(value, at);
      expect(codeOf(() => parseHeader(other, byteOffset, byteSize, "reg_x"))).toBe(code);
    }
    expect(codeOf(() => parseHeader(raw, byteOffset + 8, byteSize, "reg_x"))).toBe("validation-failed");
  }
  for (const { hex, valid, ...said } of vectors.records.items) {
    const read = () => parseRecord(fromHex(hex), vectors.records.slot_bytes);
    if (!valid) {
      expect(codeOf(read)).toBe("validation-failed");
      continue;
    }
    const { offset, byteSize, dtype, shape, kind } = read();
    expect({ offset_in_slot: offset, byte_size: byteSize, dtype, shape, kind } as object).toMatchObject({
      offset_in_slot: said.offset_in_slot,
      byte_size: said.byte_size,
      dtype: said.dtype,
      shape: said.shape,
      kind: said.kind,
    });
    expect(toRecord(read()).toString("hex", 16)).toBe(hex.slice(32));
  }
});

plainTest("no flip of one bit of a packed reference is another one of the same ring, but in its generation", () => {
  const raw = fromHex(vectors.packed[0]?.hex ?? "");
  const meant = unpack(raw);
  for (let bit = 0; bit < 8 * packedBytes; bit++) {
    const flipped = Buffer.from(raw);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    let found: ReturnType<typeof unpack>;
    try {
      found = unpack(flipped);
    } catch {
      continue;
    }
    const isElsewhere = found.dev !== meant.dev || found.ino !== meant.ino || found.region !== meant.region;
    const isAnother = found.generation !== meant.generation || found.byteOffset !== meant.byteOffset;
    expect([bit, isElsewhere || isAnother]).toEqual([bit, true]);
    expect(keyOf(flipped) === keyOf(raw)).toBe(!isElsewhere);
  }
});

const tools = `
  const client = await connect();
  const values = (array) => Array.from(array, Number);
  const take = async (receiver, options) => {
    const message = await receiver.receive(options);
    const found = [message.dtype, [...message.shape], values(message.bytes()), message.lost];
    message.close();
    return found;
  };
`;

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: what is sent is received in order, lost when the ring has come round, and over when its owner closes it`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${tools}
        const ring = await client.ring({ slots: 4, slotBytes: 64 });
        const announced = TensorReference.parse(JSON.stringify(ring.ref()));
        const receiver = client.receiver(announced);
        const late = client.receiver(announced, { onlyNew: true });
        await ring.send(new Uint8Array([1, 2]));
        await ring.send({ dtype: "BF16", shape: [1, 2], data: new Uint8Array([3, 0, 4, 0]) });
        const inOrder = [await take(receiver), await take(receiver)];
        const early = await codeOf(() => receiver.receive({ timeoutMs: 0 }));
        // One is held: its slot is not filled, and the ring goes round it.
        await ring.send(new Uint8Array([9]));
        const held = await receiver.receive();
        for (let value = 0; value < 9; value++) await ring.send(new Uint8Array([value]));
        const round = [];
        for (let left = 3; left > 0; left--) round.push(await take(receiver));
        const kept = values(held.bytes());
        const again = client.open(held.ref());
        const opened = values(again.bytes());
        again.close();
        held.close();
        const closedMessage = await codeOf(() => held.bytes());
        const lost = [receiver.lost, late.lost];
        // A wait that comes before the message.
        const waiting = receiver.receive();
        const tooLong = await codeOf(() => receiver.receive({ timeoutMs: 1 }));
        await ring.send(new Float32Array([0.5]));
        const message = await waiting;
        const float = [message.array("F32")[0], message.array()[0], await codeOf(() => message.array("F64")), await codeOf(() => message.answer(new Uint8Array(1)))];
        message.close();
        // A packed reference by a way of one's own.
        const packed = await ring.put(new Uint8Array([7]), { packed: true });
        const byHand = await receiver.open(packed);
        const found = values(byHand.bytes());
        const twice = await codeOf(() => receiver.open(packed, { timeoutMs: 1 }));
        byHand.close();
        for (let value = 0; value < 4; value++) await ring.put(new Uint8Array([value]));
        const stale = await codeOf(() => receiver.open(packed));
        const foreign = await client.ring({ slots: 4, slotBytes: 64 });
        const others = await foreign.put(new Uint8Array(1), { packed: true });
        const refused = [
          await codeOf(() => receiver.open(others)),
          await codeOf(() => receiver.open(packed, { writable: true })),
          await codeOf(() => client.receiver(TensorReference.parse({ ...ring.ref().toJSON(), byte_offset: 4096 }))),
          await codeOf(async () => client.receiver(await ring.put(new Uint8Array(1)))),
          await codeOf(() => ring.send({ dtype: "U8", shape: [1, 1, 1, 1, 1, 1, 1, 1, 1] })),
          await codeOf(() => ring.send(new Uint8Array(65))),
        ];
        // All slots are free again after what was refused.
        const slots = [];
        for (let index = 0; index < 4; index++) slots.push(await ring.acquire({ timeoutMs: 0 }));
        const none = await codeOf(() => ring.acquire({ timeoutMs: 0 }));
        const wanted = ring.acquire();
        slots[2].close();
        (await wanted).close();
        slots[0].array("U8", [1])[0] = 42;
        slots[0].send();
        const sent = await take(receiver);
        for (const slot of slots) slot.close();
        // The iteration ends with the ring, after what was sent.
        await ring.send(new Uint8Array([1]));
        const iterated = [];
        const ended = (async () => {
          for await (const each of receiver) iterated.push(values(each.bytes()));
        })();
        while (iterated.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
        const closing = receiver.receive().catch(({ code }) => code);
        ring.close();
        await ended;
        const over = [await closing, await codeOf(() => ring.ref()), await codeOf(() => ring.send(new Uint8Array(1)))];
        receiver.close();
        const closed = await codeOf(() => receiver.receive());
        late.close();
        foreign.close();
        client.close();
        tell({ inOrder, early, round, kept, opened, closedMessage, lost, tooLong, float, found, twice, stale, refused, none, sent, iterated, over, closed });
      `,
    );
    expect(seen).toEqual({
      inOrder: [
        ["U8", [2], [1, 2], 0],
        ["BF16", [1, 2], [3, 0, 4, 0], 0],
      ],
      early: "deadline-exceeded",
      // Of three slots, six were filled anew.
      round: [
        ["U8", [1], [6], 6],
        ["U8", [1], [7], 0],
        ["U8", [1], [8], 0],
      ],
      kept: [9],
      opened: [9],
      closedMessage: "closed",
      lost: [6, 0],
      tooLong: "deadline-exceeded",
      float: [0.5, 0.5, "validation-failed", "validation-failed"],
      found: [7],
      twice: "deadline-exceeded",
      stale: "stale-ref",
      refused: Array(6).fill("validation-failed"),
      none: "deadline-exceeded",
      sent: ["U8", [1], [42], 0],
      iterated: [[1]],
      over: ["stale-ref", "closed", "closed"],
      closed: "closed",
    });
  });

  test(`${runtime}: a request is taken by one of many, and answered in its slot, refused, dropped or late`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `${tools}
        const ring = await client.ring({ slots: 4, slotBytes: 256 });
        const [first, second] = [1, 2].map(() => client.receiver(ring.ref(), { writable: true }));
        const reader = client.receiver(ring.ref());
        const failure = (action) => action().then(() => "no error", ({ code, fields }) => [code, fields.reason]);
        const call = async (source, work) => {
          const sent = await ring.call(source);
          const message = await first.receive({ timeoutMs: 0 });
          work(message);
          const result = await sent.result().then(values, ({ code, fields }) => [code, fields.reason]);
          const told = result[0] === "request-failed" ? [] : [sent.dtype, sent.shape, sent.isDone];
          sent.close();
          return [result, ...told];
        };
        const seen = {
          room: await call(new Float32Array([1, 2]), (message) => {
            const room = message.room("F64", [2]);
            for (const [index, value] of message.array("F32").entries()) room[index] = value / 4;
            message.answer(room);
          }),
          asWhat: await call({ dtype: "BF16", shape: [1, 2], data: new Uint8Array([1, 0, 2, 0]) }, (message) => message.answer(message.array())),
          inPlace: await call(new Int32Array([1, 2]), (message) => {
            const array = message.array("I32");
            array[1] = 5;
            message.answer({ dtype: "I32", shape: [2, 1], data: array });
          }),
          copied: await call(new Int32Array([1, 2]), (message) => message.answer(new BigInt64Array([7n]))),
          none: await call(new Int32Array([1, 2]), (message) => message.answer({ dtype: "U8", shape: [2] })),
          failed: await call(new Int32Array([1, 2]), (message) => message.fail("no such thing: ä")),
          dropped: await call(new Int32Array([1, 2]), (message) => message.close()),
        };
        const tooLarge = await ring.call(new Uint8Array(1));
        const message = await first.receive();
        seen.refused = [await codeOf(() => message.answer(new Uint8Array(257))), await codeOf(() => message.room("U8", [193]))];
        const notYet = [tooLarge.isDone, await codeOf(() => tooLarge.dtype), await codeOf(() => tooLarge.result({ timeoutMs: 1 }))];
        message.answer(new Uint8Array([1]));
        seen.afterwards = [notYet, values(await tooLarge.bytes()), await codeOf(() => message.answer(new Uint8Array(1)))];
        tooLarge.close();
        seen.closed = await codeOf(() => tooLarge.result());
        // Another receiver passed all of them over, and so does one that reads.
        seen.others = [await codeOf(() => second.receive({ timeoutMs: 0 })), await codeOf(() => reader.receive({ timeoutMs: 0 })), second.lost, reader.lost];
        // A caller that waits no longer: who comes late finds another word, and who is at it keeps the slot.
        const given = await ring.call(new Uint8Array([1]));
        given.close();
        const late = await ring.call(new Uint8Array([2]));
        const work = [await first.receive(), await first.receive()];
        work[0].answer(new Uint8Array([1]));
        for (let index = 0; index < 4; index++) await ring.send(new Uint8Array([index]));
        seen.kept = values(work[1].bytes());
        work[1].answer(new Uint8Array([9]));
        seen.late = values(await late.result());
        late.close();
        tell(seen);
        for (const each of [first, second, reader, ring, client]) each.close();
      `,
    );
    const noAnswer = "its worker closed it without an answer";
    expect(seen).toEqual({
      room: [[0.25, 0.5], "F64", [2], true],
      asWhat: [[1, 2], "BF16", [1, 2], true],
      inPlace: [[1, 5], "I32", [2, 1], true],
      copied: [[7], "I64", [1], true],
      none: [[0, 0], "U8", [2], true],
      failed: [["request-failed", "no such thing: ä"]],
      dropped: [["request-failed", noAnswer]],
      refused: ["validation-failed", "validation-failed"],
      afterwards: [[false, "validation-failed", "deadline-exceeded"], [1], "closed"],
      closed: "closed",
      // Of eight requests through four slots one came late to four, and one that looked for the first time to one.
      others: ["deadline-exceeded", "deadline-exceeded", 4, 1],
      kept: [2],
      late: [9],
    });
  });
}

const test = testWith(needsNodeClient);

test("a worker's death fails its request, an owner's ends the ring after what was sent, and neither tears anything", async () => {
  await using server = await lendServer();
  await using caller = startProgram(
    "node",
    server.env,
    `${tools}
      const ring = await client.ring({ slots: 2, slotBytes: 1 << 20, ttlMs: 600_000 });
      tell(ring.ref());
      const outcome = (sent) => sent.result().then((array) => [array.length, array.every((value) => value === array[0])], ({ code }) => code);
      const dying = await ring.call(new Uint8Array(8));
      tell(await outcome(dying));
      dying.close();
      // Its slots are free again, and another worker answers.
      const answered = await ring.call(new Uint8Array(1 << 20).fill(3));
      tell(await outcome(answered));
      answered.close();
      await ring.send(new Uint8Array([5]));
      tell("sent");
      await receive();
    `,
  );
  const announced = JSON.stringify(await caller.hear());
  const worker = (work: string) =>
    startProgram(
      "node",
      server.env,
      `${tools}
        const receiver = client.receiver(${JSON.stringify(announced)}, { writable: true });
        const message = await receiver.receive();
        ${work}
      `,
    );
  {
    await using dying = worker(`tell(message.isRequest); await receive();`);
    expect(await dying.hear<boolean>()).toBe(true);
    await dying.kill();
    expect(await caller.hear<string>()).toBe("request-failed");
  }
  await using living = worker(`
    message.answer(message.array("U8").map((value) => value + 1));
    const next = await receiver.receive();
    tell([...next.bytes()]);
    tell("waits");
    tell(await codeOf(() => receiver.receive()));
    tell([...next.bytes()]);
    next.close();
    receiver.close();
    client.close();
  `);
  expect(await caller.hear<unknown>()).toEqual([1 << 20, true]);
  expect(await caller.hear<string>()).toBe("sent");
  expect(await living.hear<number[]>()).toEqual([5]);
  expect(await living.hear<string>()).toBe("waits");
  await caller.kill();
  expect(await living.hear<string>()).toBe("stale-ref");
  expect(await living.hear<number[]>()).toEqual([5]);
  await living.end();
});

test("a bell that others write nonsense into loses messages, and nothing else", async () => {
  await using server = await lendServer();
  const seen = await runProgram<{ hostile: unknown; received: number; after: unknown; answers: string[] }>(
    "node",
    server.env,
    `${tools}
      const { randomFillSync } = await import("node:crypto");
      const ring = await client.ring({ slots: 4, slotBytes: 64, ttlMs: 600_000 });
      const receiver = client.receiver(ring.ref(), { writable: true });
      const bell = client.open(ring.ref(), { writable: true });
      const raw = bell.bytes();
      const base = 64 - (ring.ref().byteOffset % 64 || 64);
      const entries = raw.subarray(base + 256);
      const codes = new Set();
      let received = 0;
      for (let round = 0; round < 300; round++) {
        if (round % 3 === 0) randomFillSync(entries);
        // Its tail: anything, and the owner writes its own the next time.
        if (round % 3 === 1) randomFillSync(raw.subarray(base + 64, base + 68));
        if (round % 3 === 2) randomFillSync(raw.subarray(base + 128, base + 132));
        await ring.send(new Uint8Array([round]));
        for (let left = 3; left > 0; left--) {
          try {
            const message = await receiver.receive({ timeoutMs: 0 });
            received += 1;
            message.close();
          } catch ({ code }) {
            codes.add(code);
          }
        }
      }
      const answers = [];
      for (let round = 0; round < 8; round++) {
        const sent = await ring.call(new Uint8Array([1]));
        // Answered by whoever may write the file: what does not fit is told, and nothing is read beyond the slot.
        const record = entries.subarray(8 * 128);
        for (let slot = 0; slot < 4; slot++) {
          const at = 128 * slot;
          randomFillSync(record.subarray(at + 16, at + 128));
        }
        const words = client.open(TensorReference.parse({ ...ring.ref().toJSON(), byte_offset: 4096, byte_size: 32, dtype: "U64", shape: [4] }));
        const generations = words.array("U64");
        for (let slot = 0; slot < 4; slot++) new DataView(record.buffer, record.byteOffset + 128 * slot).setBigUint64(0, generations[slot], true);
        answers.push(await codeOf(() => sent.result({ timeoutMs: 30_000 })));
        sent.close();
        words.close();
      }
      // A new receiver finds a ring that works.
      const fresh = client.receiver(ring.ref(), { onlyNew: true });
      await ring.send(new Uint8Array([77]));
      tell({ hostile: [...codes].every((code) => code === "deadline-exceeded"), received, answers, after: await take(fresh) });
      for (const each of [bell, receiver, fresh, ring, client]) each.close();
    `,
  );
  expect(seen.hostile).toBe(true);
  expect(seen.received).toBeGreaterThan(0);
  expect(seen.answers).toEqual(Array(8).fill("request-failed"));
  expect(seen.after).toEqual(["U8", [1], [77], 0]);
});

test("a thread receives as its process does, gives its slot back when it ends, and a pending wait of a thread that is ended holds nothing", async () => {
  await using server = await lendServer();
  const seen = await runProgram(
    "node",
    server.env,
    `${tools}
      const { Worker } = await import("node:worker_threads");
      const ring = await client.ring({ slots: 1, slotBytes: 64, ttlMs: 600_000 });
      const start = (work) => {
        const source = \`
          const { parentPort, workerData } = require("node:worker_threads");
          (async () => {
            const { connect } = await import("@tensord/client");
            const client = await connect({ session: false });
            const receiver = client.receiver(workerData, { writable: true });
            parentPort.postMessage("there");
            \${work}
          })();
        \`;
        const worker = new Worker(source, { eval: true, execArgv: ["--input-type=commonjs"], workerData: JSON.stringify(ring.ref()) });
        const said = [];
        worker.on("message", (value) => said.push(value));
        const until = async (count) => {
          while (said.length < count) await new Promise((resolve) => setTimeout(resolve, 2));
          return said[count - 1];
        };
        return { worker, until };
      };
      const answering = start("for await (const message of receiver) message.answer(new Uint8Array([message.bytes()[0] + 1]));");
      await answering.until(1);
      const answers = [];
      for (const value of [1, 2]) {
        const sent = await ring.call(new Uint8Array([value]));
        answers.push(...(await sent.result()));
        sent.close();
      }
      await answering.worker.terminate();
      const holding = start("const message = await receiver.receive(); parentPort.postMessage('holds'); await receiver.receive();");
      await holding.until(1);
      await ring.send(new Uint8Array([5]));
      await holding.until(2);
      const taken = await codeOf(() => ring.acquire({ timeoutMs: 0 }));
      await holding.worker.terminate();
      (await ring.acquire({ timeoutMs: 30_000 })).close();
      tell({ answers, taken });
      ring.close();
      client.close();
    `,
  );
  expect(seen).toEqual({ answers: [2, 3], taken: "deadline-exceeded" });
});

test("what was dropped without a close is let go of by the collector: descriptors, slots, and a request with word to its caller", async () => {
  await using server = await lendServer();
  const seen = await runProgram(
    "node",
    server.env,
    `${tools}
      const { readdirSync, readlinkSync } = await import("node:fs");
      const ring = await client.ring({ slots: 2, slotBytes: 64, ttlMs: 600_000 });
      const { path } = ring.ref();
      const files = () => readdirSync("/proc/self/fd").filter((fd) => {
        try {
          return readlinkSync("/proc/self/fd/" + fd) === path;
        } catch {
          return false;
        }
      }).length;
      const before = files();
      const drop = async () => {
        const receiver = client.receiver(ring.ref(), { writable: true });
        const sent = await ring.call(new Uint8Array([1]));
        const message = await receiver.receive();
        // As long as its array lives, so does the message.
        const held = message.array();
        for (let round = 0; round < 3; round++) await collect();
        if (sent.isDone) throw new Error("it was let go of while its array lived");
        return [sent, held[0]];
      };
      const [sent, value] = await drop();
      let code = "deadline-exceeded";
      while (code === "deadline-exceeded") {
        await collect();
        code = await codeOf(() => sent.result({ timeoutMs: 5 }));
      }
      sent.close();
      while (files() > before) await collect();
      const call = async () => void (await ring.call(new Uint8Array([1])));
      await call();
      await call();
      // Both slots are calls' that nobody has any more.
      let slot;
      while (slot === undefined) {
        await collect();
        slot = await ring.acquire({ timeoutMs: 5 }).catch(() => undefined);
      }
      tell({ value, code });
      slot.close();
      ring.close();
      client.close();
    `,
  );
  expect(seen).toEqual({ value: 1, code: "request-failed" });
});

/** The number that no kernel has stands for one from before futex_waitv(2), and for a sandbox without it. */
for (const [what, Kind] of [
  ["no thread", "class { constructor() { made += 1; throw new Error('no thread'); } }"],
  [
    "a thread that dies",
    "class extends Worker { constructor(_, options) { made += 1; super('process.exit(1)', options); } }",
  ],
  [
    "no futex_waitv",
    "class extends Worker { constructor(text, options) { made += 1; super(text.replace('= 449', '= 99999'), options); } }",
  ],
] as const) {
  test(`with ${what} who waits is woken all the same, and sees deadlines and the end`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      "node",
      server.env,
      `${tools}
        const threads = await import("node:worker_threads");
        const { Worker } = threads;
        let made = 0;
        threads.default.Worker = ${Kind};
        (await import("node:module")).syncBuiltinESMExports();
        const ring = await client.ring({ slots: 2, slotBytes: 64, ttlMs: 600_000 });
        const [first, second] = [client.receiver(ring.ref(), { writable: true }), client.receiver(ring.ref())];
        const early = await codeOf(() => first.receive({ timeoutMs: 150 }));
        const waiting = [take(first), take(second)];
        setTimeout(() => void ring.send(new Uint8Array([1])), 150);
        const received = (await Promise.all(waiting)).map(([, , content]) => content);
        const sent = await ring.call(new Uint8Array([1]));
        setTimeout(async () => (await first.receive()).answer(new Uint8Array([2])), 150);
        const result = values(await sent.result());
        sent.close();
        setTimeout(() => ring.close(), 150);
        const ended = await codeOf(() => second.receive());
        tell({ early, received, result, ended, made });
        for (const each of [first, second, client]) each.close();
      `,
    );
    expect(seen).toEqual({
      early: "deadline-exceeded",
      received: [[1], [1]],
      result: [2],
      ended: "stale-ref",
      made: 1,
    });
  });
}

test("one thread sleeps for all who wait", async () => {
  await using server = await lendServer();
  const seen = await runProgram<number[]>(
    "node",
    server.env,
    `${tools}
      const { readdirSync, readFileSync } = await import("node:fs");
      const ring = await client.ring({ slots: 1, slotBytes: 64, ttlMs: 600_000 });
      const receivers = Array.from({ length: 200 }, () => client.receiver(ring.ref()));
      // futex_waitv(2); futex(2) is what all other threads of a runtime wait in.
      const sleepers = () => readdirSync("/proc/self/task").filter((thread) => {
        try {
          return readFileSync("/proc/self/task/" + thread + "/syscall", "utf8").startsWith("449 ");
        } catch {
          return false;
        }
      }).length;
      const waiting = receivers.map((receiver) => receiver.receive());
      const most = [];
      for (let count = 0; count === 0; most.push(count)) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        count = sleepers();
      }
      await ring.send(new Uint8Array([1]));
      const messages = await Promise.all(waiting);
      tell([Math.max(...most), messages.length]);
      for (const each of [...messages, ...receivers, ring, client]) each.close();
    `,
  );
  expect(seen).toEqual([1, 200]);
});

test("a receiver keeps no process alive, a wait does, and a process ends in the middle of one", async () => {
  await using server = await lendServer();
  const source = `${tools}
    const ring = await client.ring({ slots: 1, slotBytes: 64, ttlMs: 600_000 });
    const receiver = client.receiver(ring.ref());
    await codeOf(() => receiver.receive({ timeoutMs: 120 }));
  `;
  // Ends by itself: nothing waits any more.
  await runProgram("node", server.env, `${source} tell(1);`);
  // Lives as long as it waits: the input is over before it is told, and what is sent later is received.
  const sent = await runProgram<number>(
    "node",
    server.env,
    `${source}
      input.return?.();
      process.stdin.destroy();
      setTimeout(() => void ring.send(new Uint8Array([3])), 150).unref();
      const message = await receiver.receive();
      tell(message.bytes()[0]);
    `,
  );
  expect(sent).toBe(3);
  await runProgram(
    "node",
    server.env,
    `${source} receiver.receive().catch(() => undefined); tell(1); setImmediate(() => process.exit(0));`,
  );
});
