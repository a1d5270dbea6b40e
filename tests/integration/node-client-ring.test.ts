/** Rings: what a slot's reference is good for and when it is not, and that no death of either side tears a tensor. */

import { afterAll, expect, test as plainTest } from "bun:test";
import { slotOf, slotOffset, toGeneration, wordOffset } from "../../clients/node/src/ring-layout.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import {
  type NodeProgram,
  needsNodeClient,
  type Runtime,
  runProgram,
  runtimes,
  startProgram,
  startPython,
} from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

plainTest("slots, words and generations are where docs/protocol.md says", () => {
  const vector = (index: number) => [
    wordOffset(index),
    slotOffset(index, 4, 4096),
    toGeneration(1, index),
    toGeneration(3, index),
  ];
  expect([0, 2, 3].map(vector)).toEqual([
    [4096, 4128, 4096, 12_288],
    [4112, 12_320, 4098, 12_290],
    [4120, 16_416, 4099, 12_291],
  ]);
  expect([slotOf(12_290), slotOffset(0, 1, 8_388_608)]).toEqual([2, 4104]);
});

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: a reference is good until the ring comes round, and a reader who has it open keeps it`, async () => {
    await using server = await startServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const ring = await client.ring({ slots: 4, slotBytes: 4090, labels: { kind: "ring" } });
        const { storage, owner, state } = await client.getById(ring.id);
        const send = (reference) => TensorReference.parse(JSON.stringify(reference));
        for (let round = 0; round < 10; round++) await ring.put(new Uint8Array(1));
        const reference = send(await ring.put({ dtype: "F32", shape: [2, 3], data: new Float32Array([1, 2, 3, 4, 5, 6]) }));
        const { readFileSync } = await import("node:fs");
        const word = readFileSync(storage.path).subarray(4112, 4120).toString("hex");
        const opened = client.open(reference);
        const values = () => Array.from(opened.array("F32"));
        // Comes round three times, past the slot that is held.
        for (let round = 0; round < 12; round++) await ring.put(new Uint8Array(4096).fill(255));
        const held = values();
        const again = client.open(reference);
        again.close();
        const locks = [await codeOf(() => opened.lockRead()), opened.ref() === reference];
        opened.close();
        const fresh = client.open(reference);
        fresh.close();
        for (let round = 0; round < 4; round++) await ring.put(new Uint8Array(1));
        tell({
          slotBytes: ring.slotBytes, owner: owner.kind, state, word, held, locks,
          reference: [reference.byteOffset, reference.byteSize, reference.generation, reference.shape],
          stale: await codeOf(() => client.open(reference)),
          staleLater: await codeOf(() => client.openWhenFree(reference)),
          closed: await codeOf(() => opened.array()),
        });
      `,
    );
    expect(seen).toEqual({
      slotBytes: 4096,
      owner: "session",
      state: "open",
      word: "0230000000000000",
      held: [1, 2, 3, 4, 5, 6],
      locks: ["feature-unavailable", true],
      reference: [12_320, 24, 12_290, [2, 3]],
      stale: "stale-ref",
      staleLater: "stale-ref",
      closed: "closed",
    });
  });

  test(`${runtime}: a slot is taken by one, lent to be written, and taken back from whoever comes late`, async () => {
    await using server = await startServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const ring = await client.ring({ slots: 2, slotBytes: 64, ttlMs: 600_000 });
        const now = { timeoutMs: 0 };
        const result = await ring.acquire(now);
        const empty = await codeOf(() => result.publish());
        result.array("I32", [4]).fill(0);
        const tooLarge = [await codeOf(() => result.array("I32", [17])), await codeOf(() => result.write(new Uint8Array(65)))];
        const reference = result.lend();
        const lentTwice = await codeOf(() => result.lend());
        // The other side.
        const theirs = client.open(reference, { writable: true });
        theirs.array("I32").set([1, 2, 3, 4]);
        const locked = [await codeOf(() => client.open(reference)), await codeOf(() => result.takeBack(now)), await codeOf(() => client.openWhenFree(reference, { timeoutMs: 20 }))];
        const waiting = client.openWhenFree(reference, { timeoutMs: 10_000 });
        theirs.close();
        (await waiting).close();
        const values = Array.from(result.array("I32", [4]));
        // Lent slots stay out of the round.
        for (let round = 0; round < 5; round++) await ring.put(new Uint8Array(1));
        const other = await ring.acquire(now);
        const none = await codeOf(() => ring.acquire(now));
        client.open(reference).close();
        await result.takeBack(now);
        const late = await codeOf(() => client.open(reference));
        const scalar = (result.array("F64", [])[0] = 0.5, result.publish());
        const read = client.open(scalar).array("F64")[0];
        other[Symbol.dispose]();
        other.close();
        const over = await codeOf(() => other.array("U8", [1]));
        const nothing = await ring.put({ dtype: "F32", shape: [0, 3] }, { timeoutMs: 5_000 });
        client.open(nothing).close();
        const wire = nothing.toJSON();
        const hostile = await codeOf(() => client.open(TensorReference.parse({ ...wire, generation: 4096 + 4095 })));
        const forged = await codeOf(() => client.open(TensorReference.parse({ ...wire, generation: wire.generation + 4096 })));
        const sizes = [await codeOf(() => client.ring({ slots: 0 })), await codeOf(() => client.ring({ slots: 4097 })), await codeOf(() => client.ring({ slotBytes: 0.5 }))];
        ring.close();
        ring.close();
        const closed = [await codeOf(() => ring.acquire(now)), ring.isClosed];
        await client.delete(ring);
        tell({ empty, tooLarge, lentTwice, locked, values, none, late, read, over, hostile, forged, sizes, closed, gone: await codeOf(() => client.open(nothing)) });
      `,
    );
    expect(seen).toEqual({
      empty: "validation-failed",
      tooLarge: ["validation-failed", "validation-failed"],
      lentTwice: "closed",
      locked: ["deadline-exceeded", "deadline-exceeded", "deadline-exceeded"],
      values: [1, 2, 3, 4],
      none: "deadline-exceeded",
      late: "stale-ref",
      read: 0.5,
      over: "closed",
      hostile: "validation-failed",
      forged: "stale-ref",
      sizes: ["validation-failed", "validation-failed", "validation-failed"],
      closed: ["closed", true],
      gone: "stale-ref",
    });
  });

  test(`${runtime}: a slot that was opened and forgotten is the ring's again once it is collected`, async () => {
    await using server = await startServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const ring = await client.ring({ slots: 1, slotBytes: 64 });
        await (async () => { client.open(await ring.put(new Uint8Array([1]))).array(); })();
        const held = await codeOf(() => ring.acquire({ timeoutMs: 0 }));
        for (;;) {
          await collect();
          if (await codeOf(() => ring.put(new Uint8Array(1), { timeoutMs: 0 })) === "no error") break;
        }
        tell(held);
      `,
    );
    expect(seen).toBe("deadline-exceeded");
  });
}

const slots = 4;

/** For each thing it receives, puts one tensor: as many U32 as the sequence number says, each of them that number. */
const producers = {
  node: `
    const client = await connect();
    const ring = await client.ring({ slots: ${slots}, slotBytes: 40_000 });
    for (;;) {
      const sequence = await receive();
      if (sequence === "all") {
        for (let taken = 0; taken < ${slots}; taken++) await ring.acquire({ timeoutMs: 10_000 });
        tell("all");
        continue;
      }
      const slot = await ring.acquire({ timeoutMs: 10_000 });
      const array = slot.array("U32", [1000 + sequence]);
      for (let start = 0; start < array.length; start += 100) {
        array.fill(sequence, start, start + 100);
        await new Promise((resolve) => setImmediate(resolve));
      }
      tell([sequence, slot.publish()]);
    }
  `,
  python: `
    client = tensord.connect()
    ring = client.ring(slots=${slots}, slot_bytes=40_000)
    while True:
        sequence = receive()
        if sequence == "all":
            taken = [ring.acquire(timeout=10) for _ in range(${slots})]
            tell("all")
            continue
        slot = ring.acquire(timeout=10)
        array = slot.array((1000 + sequence,), np.uint32)
        for start in range(0, len(array), 100):
            array[start : start + 100] = sequence
        tell([sequence, slot.publish().to_dict()])
  `,
};

/** Opens what it is told of, says what it sees, and keeps it open until the next one; it must not have changed by then. */
const consumers = {
  node: `
    const client = await connect();
    const isWhole = (tensor, sequence) => tensor.shape[0] === 1000 + sequence && tensor.array("U32").every((value) => value === sequence);
    let last;
    tell("ready");
    for (;;) {
      const [sequence, reference] = await receive();
      const wasWhole = last === undefined || isWhole(...last);
      last?.[0].close();
      last = undefined;
      let said = "whole";
      try {
        const tensor = await client.openWhenFree(TensorReference.parse(reference), { timeoutMs: 10_000 });
        if (!isWhole(tensor, sequence)) said = "torn";
        last = [tensor, sequence];
      } catch (error) {
        said = error.code;
      }
      tell(wasWhole ? said : "changed while it was open");
    }
  `,
  python: `
    client = tensord.connect()
    last = None
    def is_whole(tensor, sequence):
        return tensor.shape == (1000 + sequence,) and bool((tensor.numpy() == sequence).all())
    tell("ready")
    while True:
        sequence, reference = receive()
        was_whole = last is None or is_whole(*last)
        if last is not None:
            last[0].close()
        last = None
        said = "whole"
        try:
            tensor = client.open(tensord.TensorReference.from_dict(reference), timeout=10)
            if not is_whole(tensor, sequence):
                said = "torn"
            last = (tensor, sequence)
        except tensord.TensordError as error:
            said = error.code
        tell(said if was_whole else "changed while it was open")
  `,
};

type Message = readonly [number, { readonly generation: number }];

/** One producer and two consumers; each may be killed and replaced at any time. */
class Ringing implements AsyncDisposable {
  readonly #startProducer: () => NodeProgram;
  readonly #startConsumer: () => NodeProgram;
  #producer: NodeProgram;
  readonly #consumers: NodeProgram[] = [];
  #sequence = 0;

  constructor(startProducer: () => NodeProgram, startConsumer: () => NodeProgram) {
    this.#startProducer = startProducer;
    this.#startConsumer = startConsumer;
    this.#producer = startProducer();
  }

  async begin(): Promise<this> {
    for (const index of [0, 1]) await this.replaceConsumer(index);
    return this;
  }

  /** The next tensor. Whoever does not wait for it must expect that its producer is killed before. */
  async put(): Promise<Message> {
    this.#sequence += 1;
    const producer = this.#producer;
    await producer.say(this.#sequence);
    return producer.hear<Message>();
  }

  /** What a consumer sees of it. */
  async consume(index: number, message: Message): Promise<string> {
    await this.#consumers[index]?.say(message);
    return (await this.#consumers[index]?.hear<string>()) ?? "no consumer";
  }

  async takeAll(): Promise<unknown> {
    await this.#producer.say("all");
    return this.#producer.hear();
  }

  async replaceProducer(): Promise<void> {
    await this.#producer.kill();
    this.#producer = this.#startProducer();
  }

  async replaceConsumer(index: number): Promise<void> {
    await this.#consumers[index]?.kill();
    const consumer = this.#startConsumer();
    this.#consumers[index] = consumer;
    expect(await consumer.hear()).toBe("ready");
  }

  /** Tells a consumer of a tensor and kills it, whatever it is doing with it. */
  async killConsumer(index: number, message: Message): Promise<void> {
    await this.#consumers[index]?.say(message);
    await this.replaceConsumer(index);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of [this.#producer, ...this.#consumers]) await program.kill();
  }
}

const rounds = 80;

async function ring(ringing: Ringing, random: Random): Promise<void> {
  const sent: Message[] = [];
  const seen: Record<string, number> = {};
  for (let round = 0; round < rounds; round++) {
    const asked = ringing.put();
    asked.catch(() => undefined);
    if (random.isTrue(0.05)) {
      await ringing.replaceProducer();
      // What it had sent it may have finished, or not: it must not be half a tensor.
      await asked.then(
        (message) => sent.push(message),
        () => undefined,
      );
      continue;
    }
    // While it fills a slot, somebody reads another, and perhaps too late.
    const late = sent.length === 0 ? undefined : random.pick(sent.slice(-2 * slots));
    const index = random.integer(0, 1);
    if (late !== undefined) {
      const said = await ringing.consume(index, late);
      expect(said, `tensor ${late[0]} with seed ${random.seed}`).toBeOneOf(["whole", "stale-ref"]);
      seen[said] = (seen[said] ?? 0) + 1;
    }
    const message = await asked;
    sent.push(message);
    // Nobody has taken a slot since, so this one is fresh.
    if (random.isTrue(0.5)) {
      expect(await ringing.consume(random.integer(0, 1), message), `fresh, with seed ${random.seed}`).toBe("whole");
    }
    if (random.isTrue(0.08)) await ringing.killConsumer(index, message);
  }
  expect(Object.keys(seen).toSorted()).toEqual(["stale-ref", "whole"]);
}

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  for (const producer of ["node", "python"] as const) {
    const [from, to] = producer === "node" ? [runtime, "python"] : ["python", runtime];
    testWith(needsNodeClient, needsStockPython)(
      `${from} to ${to}: killed at random, no tensor is torn, none stale is taken for fresh, no slot is lost`,
      async () => {
        const random = new Random();
        console.log(`TEST_SEED=${random.seed}`);
        await using server = await startServer();
        const { env } = server;
        await using ringing = await new Ringing(
          () => (producer === "node" ? startProgram(runtime, env, producers.node) : startPython(env, producers.python)),
          () => (producer === "node" ? startPython(env, consumers.python) : startProgram(runtime, env, consumers.node)),
        ).begin();
        await ring(ringing, random);
        const old = await ringing.put();
        for (let round = 0; round < slots; round++) await ringing.put();
        expect(await ringing.consume(0, old)).toBe("stale-ref");
        // Whoever holds a slot is killed: then the owner gets every one.
        expect(await ringing.consume(1, await ringing.put())).toBe("whole");
        await ringing.replaceConsumer(0);
        await ringing.replaceConsumer(1);
        expect(await ringing.takeAll()).toBe("all");
      },
      60_000,
    );
  }
}
