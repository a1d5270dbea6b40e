/** Rings: what a slot's reference is good for and when it is not, and that no death of either side tears a tensor. */

import { afterAll, expect, test as plainTest } from "bun:test";
import { slotOf, slotOffset, toGeneration, wordOffset } from "../../clients/node/src/rings/ring-layout.ts";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  type NodeProgram,
  needsNodeClient,
  type Runtime,
  runProgram,
  runtimes,
  startProgram,
  startPython,
} from "../harness/node-program.ts";
import { roundsOf } from "../harness/rounds.ts";

afterAll(endLentServers);

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
    await using server = await lendServer();
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
    await using server = await lendServer();
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
        const waiting = client.openWhenFree(reference, { timeoutMs: 180_000 });
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
        const nothing = await ring.put({ dtype: "F32", shape: [0, 3] }, { timeoutMs: 180_000 });
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
    await using server = await lendServer();
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
const pieces = 10;

/**
 * For each number it receives, puts one tensor: as many U32 as the number says, each of them that number. It is told how
 * long to pause at each of the tensor's pieces, and before which of them to die by its own hand, if at all.
 */
const producers = {
  node: `
    const client = await connect();
    // Owned by the clock: what a producer leaves half done outlives it, and can be looked at.
    const ring = await client.ring({ slots: ${slots}, slotBytes: 40_000, ttlMs: 600_000 });
    const take = async () => {
      const taken = [];
      try {
        while (taken.length < ${slots}) taken.push(await ring.acquire({ timeoutMs: 180_000 }));
      } catch (error) {
        if (error.code !== "deadline-exceeded") throw error;
      }
      for (const slot of taken) slot.close();
      return taken.length;
    };
    tell(ring.id);
    for (;;) {
      const { what: number, pauseMs, dieAt } = await receive();
      if (number === "take all") {
        tell(await take());
        continue;
      }
      const slot = await ring.acquire({ timeoutMs: 180_000 });
      const array = slot.array("U32", [1000 + number]);
      for (let piece = 0; piece <= ${pieces}; piece++) {
        if (piece === dieAt) process.kill(process.pid, "SIGKILL");
        const [start, end] = [piece, piece + 1].map((at) => Math.floor((at * array.length) / ${pieces}));
        array.fill(number, start, end);
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
      tell([number, slot.publish()]);
    }
  `,
  python: `
    import os, signal, time
    client = tensord.connect()
    ring = client.ring(slots=${slots}, slot_bytes=40_000, ttl=600)
    def take():
        taken = []
        try:
            while len(taken) < ${slots}:
                taken.append(ring.acquire(timeout=180))
        except tensord.DeadlineExceeded:
            pass
        for slot in taken:
            slot.close()
        return len(taken)
    tell(ring.region.id)
    while True:
        asked = receive()
        number = asked["what"]
        if number == "take all":
            tell(take())
            continue
        slot = ring.acquire(timeout=180)
        array = slot.array((1000 + number,), np.uint32)
        for piece in range(${pieces} + 1):
            if piece == asked["dieAt"]:
                os.kill(os.getpid(), signal.SIGKILL)
            array[piece * len(array) // ${pieces} : (piece + 1) * len(array) // ${pieces}] = number
            time.sleep(asked["pauseMs"] / 1000)
        tell([number, slot.publish().to_dict()])
  `,
};

/**
 * Opens what it is told of, reads it in pieces, says what it saw, and keeps it open until it is asked again; it must not have
 * changed by then. Dies as a producer does.
 */
const consumers = {
  node: `
    const client = await connect();
    const judge = (values, number) => (values.size > 1 ? "torn" : values.has(number) ? "whole" : "another's");
    let last;
    tell("ready");
    for (;;) {
      const { what, pauseMs, dieAt } = await receive();
      const [tensorBefore, numberBefore] = last ?? [];
      const before = last === undefined ? "whole" : judge(new Set(tensorBefore.array("U32")), numberBefore);
      tensorBefore?.close();
      last = undefined;
      let said = "nothing";
      if (what !== "let go") {
        const [number, reference] = what;
        try {
          const tensor = await client.openWhenFree(TensorReference.parse(reference), { timeoutMs: 180_000 });
          const array = tensor.array("U32");
          const values = new Set();
          for (let piece = 0; piece <= ${pieces}; piece++) {
            if (piece === dieAt) process.kill(process.pid, "SIGKILL");
            const [start, end] = [piece, piece + 1].map((at) => Math.floor((at * array.length) / ${pieces}));
            for (const value of array.subarray(start, end)) values.add(value);
            await new Promise((resolve) => setTimeout(resolve, pauseMs));
          }
          said = judge(values, number);
          last = [tensor, number];
        } catch (error) {
          said = error.code ?? String(error);
        }
      }
      tell(before === "whole" ? said : "torn");
    }
  `,
  python: `
    import os, signal, time
    client = tensord.connect()
    last = None
    def judge(values, number):
        return "torn" if len(values) > 1 else "whole" if number in values else "another's"
    tell("ready")
    while True:
        asked = receive()
        before = "whole" if last is None else judge(set(last[0].numpy().tolist()), last[1])
        if last is not None:
            last[0].close()
        last = None
        said = "nothing"
        if asked["what"] != "let go":
            number, reference = asked["what"]
            try:
                tensor = client.open(tensord.TensorReference.from_dict(reference), timeout=180)
                array = tensor.numpy()
                values = set()
                for piece in range(${pieces} + 1):
                    if piece == asked["dieAt"]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    start, end = (at * len(array) // ${pieces} for at in (piece, piece + 1))
                    values.update(array[start:end].tolist())
                    time.sleep(asked["pauseMs"] / 1000)
                said = judge(values, number)
                last = (tensor, number)
            except tensord.TensordError as error:
                said = error.code
        tell(said if before == "whole" else "torn")
  `,
};

type Message = readonly [number: number, reference: { readonly region: string; readonly generation: number }];

/** How a program does what it is asked, and whether it survives that. */
interface Fate {
  readonly pauseMs: number;
  /** Before which piece it kills itself. */
  readonly dieAt?: number | null;
  /** How long after it was asked somebody else kills it. */
  readonly killedAfterMs?: number;
}

const survival: Fate = { pauseMs: 0 };

/** Of those who are to die, half do so in the middle by their own hand, and half at a moment that knows nothing of them. */
function pickFate(random: Random, mortality: number): Fate {
  const pauseMs = random.integer(0, 2);
  if (!random.isTrue(mortality)) return { pauseMs };
  return random.isTrue(0.5)
    ? { pauseMs, dieAt: random.integer(0, pieces) }
    : { pauseMs: 2, killedAfterMs: random.integer(0, 20) };
}

/** One side of a ring: a program that is followed by another of its kind when it is dead. */
class Mortal implements AsyncDisposable {
  readonly #begin: () => NodeProgram;
  #program: NodeProgram | undefined;
  /** What the living one said first. */
  greeting: unknown;
  /** Those who died over what they were asked. One that was killed after its answer is none of them. */
  deaths = 0;

  constructor(begin: () => NodeProgram) {
    this.#begin = begin;
  }

  /** @returns its answer, or undefined if it died before it gave one */
  async ask<Answer>(
    what: unknown,
    { pauseMs, dieAt = null, killedAfterMs }: Fate = survival,
  ): Promise<Answer | undefined> {
    const program = await this.#living();
    await program.say({ what, pauseMs, dieAt });
    if (killedAfterMs !== undefined) {
      await Bun.sleep(killedAfterMs);
      await program.kill();
      this.#program = undefined;
    }
    try {
      return await program.hear<Answer>();
    } catch (error) {
      // 128 and SIGKILL's number: any other end is a fault.
      if (!String(error).includes("the program ended with 137:")) throw error;
      this.#program = undefined;
      this.deaths += 1;
      return undefined;
    }
  }

  async #living(): Promise<NodeProgram> {
    if (this.#program === undefined) {
      this.#program = this.#begin();
      this.greeting = await this.#program.hear();
    }
    return this.#program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.kill();
  }
}

const leastRounds = roundsOf("node-client-ring");
const leastDeaths = Math.ceil(leastRounds / 15);

/** One producer and two consumers. Whatever they see is counted, and the counts are judged at the end. */
class Ringing {
  readonly #producer: Mortal;
  readonly #consumers: readonly Mortal[];
  readonly #random: Random;
  readonly #sent: Message[] = [];
  readonly #said: Record<string, number> = { whole: 0, "stale-ref": 0, torn: 0, "another's": 0 };
  #freshRefused = 0;
  #staleOpened = 0;
  #slotsLost = 0;

  constructor(producer: Mortal, consumers: readonly Mortal[], random: Random) {
    this.#producer = producer;
    this.#consumers = consumers;
    this.#random = random;
  }

  get deaths(): readonly [producers: number, consumers: number] {
    return [this.#producer.deaths, this.#consumers.reduce((sum, { deaths }) => sum + deaths, 0)];
  }

  get counts() {
    const { whole, "stale-ref": stale, torn, "another's": others, ...unexpected } = this.#said;
    const [producer_deaths, consumer_deaths] = this.deaths;
    const stale_taken = (others ?? 0) + this.#staleOpened;
    const faults = { torn, stale_taken, slots_lost: this.#slotsLost, fresh_refused: this.#freshRefused, unexpected };
    return { producer_deaths, consumer_deaths, whole, stale, ...faults };
  }

  async run(): Promise<void> {
    for (let round = 1; round <= 20 * leastRounds; round++) {
      await this.#round(round);
      if (round >= leastRounds && Math.min(...this.deaths) >= leastDeaths) return;
    }
  }

  /** One fills a slot while two read others, perhaps too late, or of a ring whose owner is dead. */
  async #round(number: number): Promise<void> {
    const random = this.#random;
    const fates = [pickFate(random, 0.12), pickFate(random, 0.06), pickFate(random, 0.06)] as const;
    const late = this.#consumers.map(() => (this.#sent.length === 0 ? undefined : random.pick(this.#sent.slice(-10))));
    const deathsBefore = this.deaths[1];
    const [message] = await Promise.all([
      this.#producer.ask<Message>(number, fates[0]),
      ...late.map((old, index) => old && this.#read(index, old, fates[index + 1])),
    ]);
    if (message === undefined) {
      // Its last tensors lie in the slots before and behind the one that it left half done, and in that one.
      for (const old of this.#sent.slice(-slots)) await this.#read(0, old);
    } else {
      this.#sent.push(message);
      // Nobody has taken a slot since, so this one is fresh.
      if (random.isTrue(0.5)) {
        const said = await this.#read(1, message, pickFate(random, 0.06));
        if (said === "stale-ref") this.#freshRefused += 1;
      }
    }
    if (this.deaths[1] > deathsBefore) await this.#takeAll();
  }

  async #read(index: number, message: Message, fate?: Fate): Promise<string | undefined> {
    const said = await this.#consumers[index]?.ask<string>(message, fate);
    if (said !== undefined) this.#said[said] = (this.#said[said] ?? 0) + 1;
    return said;
  }

  /** When no living consumer has a slot open, the owner gets every one: the dead have none. Then all it sent is stale. */
  async #takeAll(): Promise<void> {
    for (const consumer of this.#consumers) {
      if ((await consumer.ask<string>("let go")) === "torn") this.#said.torn = (this.#said.torn ?? 0) + 1;
    }
    this.#slotsLost += slots - ((await this.#producer.ask<number>("take all")) ?? 0);
    const mine = this.#sent.filter(([, { region }]) => region === this.#producer.greeting);
    for (const message of mine.slice(-1)) {
      if ((await this.#read(0, message)) !== "stale-ref") this.#staleOpened += 1;
    }
  }
}

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  for (const producer of ["node", "python"] as const) {
    const [from, to] = producer === "node" ? [runtime, "python"] : ["python", runtime];
    testWith(needsNodeClient, needsStockPython)(
      `${from} to ${to}: killed at random, no tensor is torn, none stale is taken for fresh, no slot is lost`,
      async () => {
        const random = new Random();
        console.log(`TEST_SEED=${random.seed}`);
        await using server = await lendServer();
        const { env } = server;
        await using stack = new AsyncDisposableStack();
        const beginConsumer = () =>
          producer === "node" ? startPython(env, consumers.python) : startProgram(runtime, env, consumers.node);
        const beginProducer = () =>
          producer === "node" ? startProgram(runtime, env, producers.node) : startPython(env, producers.python);
        const [one, two, three] = [beginProducer, beginConsumer, beginConsumer].map((begin) =>
          stack.use(new Mortal(begin)),
        ) as [Mortal, Mortal, Mortal];
        const ringing = new Ringing(one, [two, three], random);
        try {
          await ringing.run();
        } finally {
          console.log(JSON.stringify({ ring: `${from} to ${to}`, seed: random.seed, ...ringing.counts }));
        }
        const { producer_deaths, consumer_deaths, whole, stale, ...faults } = ringing.counts;
        expect(faults).toEqual({ torn: 0, stale_taken: 0, slots_lost: 0, fresh_refused: 0, unexpected: {} });
        expect(Math.min(producer_deaths, consumer_deaths)).toBeGreaterThanOrEqual(leastDeaths);
        // Both were seen, or the counts above say nothing.
        expect(Math.min(whole ?? 0, stale ?? 0)).toBeGreaterThan(0);
      },
    );
  }
}
