/** A ring between Python and Node: each sends to the other and answers it, and each sees the other's death. */

import { afterAll, expect } from "bun:test";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { type NodeProgram, needsNodeClient, startProgram, startPython } from "../harness/node-program.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";

afterAll(endLentServers);

const test = testWith(needsNodeClient, needsStockPython);

/** A worker tells that it is there, and answers with each element doubled; 0 it refuses, and 255 it keeps for ever. */
const workers = {
  python: (env: Record<string, string>) =>
    startPython(
      env,
      `
        import time
        client = tensord.connect()
        with client.receiver(tensord.TensorReference.from_json(json.dumps(receive())), writable=True) as receiver:
            tell("there")
            kept = []
            while True:
                try:
                    message = receiver.receive()
                except tensord.StaleRef as error:
                    tell(error.code)
                    break
                array = message.numpy()
                if not message.is_request:
                    tell([message.dtype, list(message.shape), array.ravel().tolist()])
                    message.close()
                elif array.flat[0] == 255:
                    kept.append(message)
                    tell("keeps")
                elif array.flat[0] == 0:
                    message.fail("nothing to double: ä")
                else:
                    message.answer(array * 2)
        client.close()
      `,
    ),
  node: (env: Record<string, string>) =>
    startProgram(
      "node",
      env,
      `
        const client = await connect();
        const receiver = client.receiver(await receive(), { writable: true });
        tell("there");
        const kept = [];
        for (;;) {
          let message;
          try {
            message = await receiver.receive();
          } catch ({ code }) {
            tell(code);
            break;
          }
          const array = message.array();
          if (!message.isRequest) {
            tell([message.dtype, message.shape, [...array]]);
            message.close();
          } else if (array[0] === 255) {
            kept.push(message);
            tell("keeps");
          } else if (array[0] === 0) message.fail("nothing to double: ä");
          else if (message.byteSize > 1000) {
            // Over the request: there is no room behind it.
            message.answer({ dtype: message.dtype, shape: message.shape, data: array.map((value) => 2 * value) });
          } else {
            const room = message.room(message.dtype, message.shape);
            for (const [index, value] of array.entries()) room[index] = 2 * value;
            message.answer(room);
          }
        }
        receiver.close();
        client.close();
        process.exit();
      `,
    ),
};

/**
 * An owner tells its ring, and does what it is told: "call" and elements, "send" and elements, "close"; "many" and a count: so many calls of
 * growing content, each again where it failed, of which it tells each tenth, and in the end how many failed and how many were torn.
 */
const owners = {
  python: (env: Record<string, string>) =>
    startPython(
      env,
      `
        client = tensord.connect()
        ring = client.ring(slots=4, slot_bytes=1 << 16, ttl=600)
        tell(json.loads(ring.ref().to_json()))
        while True:
            what, *values = receive()
            if what == "many":
                failed = torn = 0
                count = 0
                while count < values[0]:
                    given = np.full((1, 1 + count * 149 % 16000), count + 1, np.float32)
                    try:
                        with ring.call(given) as call:
                            result = call.result(timeout=60)
                            torn += result.shape != given.shape or not (result == 2 * given).all()
                            count += 1
                            if count % 10 == 0:
                                tell(count)
                    except tensord.RequestFailed:
                        failed += 1
                tell([failed, torn])
                continue
            array = np.array(values, np.float32).reshape(1, -1)
            if what == "close":
                break
            if what == "send":
                ring.send(array)
                continue
            with ring.call(array) as call:
                try:
                    result = call.result(timeout=60)
                    tell([call.dtype, list(call.shape), result.ravel().tolist()])
                except tensord.RequestFailed as error:
                    tell([error.code, error.fields.get("reason")])
        ring.close()
        client.close()
      `,
    ),
  node: (env: Record<string, string>) =>
    startProgram(
      "node",
      env,
      `
        const client = await connect();
        const ring = await client.ring({ slots: 4, slotBytes: 1 << 16, ttlMs: 600_000 });
        tell(ring.ref());
        for (;;) {
          const [what, ...values] = await receive();
          if (what === "many") {
            let [failed, torn, count] = [0, 0, 0];
            while (count < values[0]) {
              const given = new Float32Array(1 + ((count * 149) % 16_000)).fill(count + 1);
              const call = await ring.call(given);
              try {
                const result = await call.result({ timeoutMs: 60_000 });
                if (result.length !== given.length || result.some((value) => value !== 2 * (count + 1))) torn += 1;
                count += 1;
                if (count % 10 === 0) tell(count);
              } catch (error) {
                if (error.code !== "request-failed") throw error;
                failed += 1;
              }
              call.close();
            }
            tell([failed, torn]);
            continue;
          }
          if (what === "close") break;
          const source = { dtype: "F32", shape: [1, values.length], data: new Float32Array(values) };
          if (what === "send") {
            await ring.send(source);
            continue;
          }
          const call = await ring.call(source);
          tell(await call.result({ timeoutMs: 60_000 }).then(
            (array) => [call.dtype, call.shape, [...array]],
            ({ code, fields }) => [code, fields.reason ?? null],
          ));
          call.close();
        }
        ring.close();
        client.close();
        process.exit();
      `,
    ),
};

type Language = keyof typeof owners;

async function announce(ring: unknown, worker: NodeProgram): Promise<void> {
  await worker.say(ring);
  expect(await worker.hear<string>()).toBe("there");
}

async function ask(owner: NodeProgram, ...values: number[]): Promise<unknown> {
  await owner.say(["call", ...values]);
  return owner.hear();
}

for (const [owning, working] of [
  ["node", "python"],
  ["python", "node"],
] as const satisfies readonly (readonly [Language, Language])[]) {
  test(`${owning} sends and asks, ${working} receives and answers, and each sees the other's end`, async () => {
    await using server = await lendServer();
    await using owner = owners[owning](server.env);
    await using worker = workers[working](server.env);
    const ring = await owner.hear();
    await announce(ring, worker);
    await owner.say(["send", 1.5, -2]);
    expect(await worker.hear<unknown>()).toEqual(["F32", [1, 2], [1.5, -2]]);
    for (let value = 1; value < 12; value++) {
      expect(await ask(owner, value, 0.5)).toEqual(["F32", [1, 2], [2 * value, 1]]);
    }
    expect(await ask(owner, 0)).toEqual(["request-failed", "nothing to double: ä"]);
    // The worker dies with the request: nobody answers it any more, and the next worker answers the next one.
    await owner.say(["call", 255]);
    expect(await worker.hear<string>()).toBe("keeps");
    await worker.kill();
    expect(await owner.hear<unknown>()).toEqual(["request-failed", null]);
    await using next = workers[working](server.env);
    await announce(ring, next);
    expect(await ask(owner, 8)).toEqual(["F32", [1, 1], [16]]);
    await owner.say(["close"]);
    await owner.end();
    expect(await next.hear<string>()).toBe("stale-ref");
    await next.end();
  });
}

const rounds = roundsOf("mixed-bell");

/** What a killed process leaves half done is nobody's message: whoever is left gets whole ones, or is told. */
test(
  "SIGKILL of either side at random leaves nothing torn, and nobody waiting",
  async () => {
    await using server = await lendServer();
    for (let round = 0; round < rounds; round++) {
      const random = new Random(1000 + round);
      const [owning, working] = round % 2 === 0 ? (["node", "python"] as const) : (["python", "node"] as const);
      await using owner = owners[owning](server.env);
      await using worker = workers[working](server.env);
      const ring = await owner.hear();
      await announce(ring, worker);
      const isOwnersDeath = random.integer(0, 1) === 0;
      await owner.say(["many", 100]);
      for (let told = random.integer(1, 9); told > 0; told--) expect(await owner.hear<number>()).toBeGreaterThan(0);
      if (isOwnersDeath) {
        await owner.kill();
        expect(await worker.hear<string>()).toBe("stale-ref");
        await worker.end();
        continue;
      }
      await worker.kill();
      await using next = workers[working](server.env);
      await announce(ring, next);
      let told: unknown;
      do told = await owner.hear();
      while (typeof told === "number");
      expect(told).toEqual([expect.any(Number), 0]);
      expect((told as number[])[0]).toBeLessThanOrEqual(1);
      await owner.say(["close"]);
      await owner.end();
      expect(await next.hear<string>()).toBe("stale-ref");
      await next.end();
    }
  },
  deadlineMsOf(rounds, 10_000),
);
