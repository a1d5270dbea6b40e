/**
 * Tens of thousands of messages to the broker that are wrong in some way, over connections that end in some way. Each is answered
 * or ends its own connection; nobody else notices, and nothing is left of it.
 */

import { expect, test } from "bun:test";
import { openSync, readdirSync } from "node:fs";
import { BrokerClient, type Received } from "../harness/broker-client.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { Random } from "../harness/instance-random.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { toOddBytes, toOddRequest } from "./broker-frames.ts";

const hour = 3_600_000;
const MiB = 2 ** 20;
const messages = roundsOf("broker-fuzz");
/** Connections at once, and messages of one at most. */
const width = 16;
const perConnection = 8;

interface Counts {
  sent: number;
  answered: number;
  refused: number;
  closed: number;
}

function countOpen({ pid }: TestServer): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

async function readMemoryBytes({ pid }: TestServer): Promise<number> {
  const text = await Bun.file(`/proc/${pid}/status`).text();
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1]) * 1024;
}

/** What is there to be asked about. */
interface Known {
  readonly regions: readonly string[];
  /** Of a stand-in for the driver, where there is one. */
  readonly device?: string;
  readonly pools?: readonly string[];
}

/** A pool with pages to take. */
async function makePool({ api }: TestServer): Promise<Omit<Known, "regions">> {
  const device = standInUuid(0);
  const path = `/v1/models/default/vmm/${device}`;
  const { id } = await api.call<{ id: string }>("PUT", path, { virtual_capacity: 32 * MiB, page_size: 2 * MiB });
  await api.call("POST", `${path}/map`, { byte_size: 8 * MiB });
  return { device, pools: [id] };
}

/** What an answer has to be, whatever it answers. @returns whether the connection is closed after it. */
function checkAnswer({ reply, descriptors }: Received, counts: Counts): boolean {
  expect(descriptors.length).toBe(reply.fds?.length ?? 0);
  if (reply.ok) counts.answered += 1;
  else {
    counts.refused += 1;
    expect(reply.problem?.code).not.toBe("internal");
    expect([reply.problem?.status, reply.problem?.detail]).toEqual([expect.any(Number), expect.any(String)]);
  }
  return reply.id === null;
}

/** One connection: some messages, and all that is answered to them. */
async function converse(random: Random, path: string, { regions, ...pools }: Known, counts: Counts): Promise<void> {
  using client = new BrokerClient(path);
  const sent: (string | Uint8Array)[] = [];
  const isRaw = random.isTrue(0.4);
  if (random.isTrue(0.8)) sent.push(`{"id":0,"op":"hello","v":1}`);
  for (let count = random.integer(1, perConnection); count > 0; count--) {
    const text = toOddRequest(random, regions, random.integer(0, 99), pools);
    sent.push(isRaw && random.isTrue(0.5) ? toOddBytes(random, text) : text);
  }
  try {
    let left = 0;
    for (const message of sent) {
      counts.sent += 1;
      const hostile = random.isTrue(0.01) ? [client.fd, openNull] : [];
      if (client.send(message, hostile) === "sent") left += 1;
    }
    if (random.isTrue(0.1)) return;
    if (random.isTrue(0.1)) client.endSending();
    for (; left > 0; left--) {
      const received = await client.receive();
      if (received === "closed" || checkAnswer(received, counts)) {
        counts.closed += 1;
        return;
      }
      if (random.isTrue(0.7)) client.letGo(received.descriptors);
    }
  } catch (error) {
    const shown = sent.map((message) => Buffer.from(message).toString("latin1").slice(0, 500));
    throw new Error(`after ${JSON.stringify(shown)}: ${(error as Error).message}`, { cause: error });
  }
}

const openNull = openSync("/dev/null", "r");

test(
  `${messages} odd messages are answered or end their own connection, and leave nothing behind`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    await using cuda = needsStandIn === undefined ? new CudaStandIn() : undefined;
    await using server = await startServer({ env: cuda?.env ?? {} });
    const { api, instance } = server;
    const pools = cuda === undefined ? {} : await makePool(server);
    const open = await api.create({ name: "open", byte_size: 4096, persist: true });
    const many = Array.from({ length: 2000 }, (_, index) => ({ name: `t${index}`, dtype: "U8" as const, shape: [1] }));
    const sealed = await api.create({ name: "weights", tensors: many, persist: true });
    await api.seal(sealed.id, { checksum: true });
    using witness = await BrokerClient.open(instance.broker, { session: { name: "witness", ttl_ms: hour } });
    const { descriptors } = await witness.attach(sealed.id);
    const counts: Counts = { sent: 0, answered: 0, refused: 0, closed: 0 };
    const regions = [open.id, sealed.id];
    const known = { regions, ...pools };
    const run = async (upTo: number) => {
      while (counts.sent < upTo) {
        await converse(random, instance.broker, known, counts);
        const { region, descriptors: more } = await witness.attach(sealed.id);
        expect(region.id).toBe(sealed.id);
        witness.letGo(more);
      }
    };
    // What warms up is not what leaks.
    await run(Math.floor(messages / 4));
    await until("the warm-up's connections are closed", () => countOpen(server) < 100);
    const [openBefore, memoryBefore] = [countOpen(server), await readMemoryBytes(server)];
    await Promise.all(Array.from({ length: width }, () => runBeside(random, messages, counts, { server, known })));
    await until("nothing of it is left open", () => countOpen(server) <= openBefore);
    expect((await readMemoryBytes(server)) - memoryBefore).toBeLessThan(96 * MiB);
    // Each kind of end was there.
    for (const count of Object.values(counts)) expect(count).toBeGreaterThan(messages / 50);
    await until("only the witness maps it", async () => (await api.get(sealed.id)).holders.length <= 1);
    witness.letGo(descriptors);
    await until("nobody leases anything", async () => {
      const found = await Promise.all(regions.map((id) => api.get(id)));
      return found.every(({ in_use: inUse }) => !inUse);
    });
    expect((await api.verify(sealed.id)).ok).toBeTrue();
    if (pools.device === undefined) return;
    // Whoever was attached is gone, and with it what it had.
    const path = `/v1/models/default/vmm/${pools.device}`;
    await until("the pool has no worker", async () => {
      return (await api.call<{ workers: object[] }>("GET", path)).workers.length === 0;
    });
    await api.call("DELETE", path);
  },
  deadlineMsOf(messages, 5),
);

async function runBeside(
  random: Random,
  upTo: number,
  counts: Counts,
  { server, known }: { server: TestServer; known: Known },
): Promise<void> {
  while (counts.sent < upTo) await converse(random, server.instance.broker, known, counts);
}
