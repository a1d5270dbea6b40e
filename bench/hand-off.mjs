/**
 * The Node half of hand-off-node.ts: both sides of each way, the other side in a process of its own.
 * Usage: hand-off.mjs <socket> <bytes> <placement> <node> <python>. Prints one JSON object of lists of microseconds.
 * With `serve <way> …` it is the other side.
 */

import { spawn, spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, openSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { connect as connectTo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connect } from "../clients/node/dist/index.js";

const self = fileURLToPath(import.meta.url);
const MAP_SHARED = 1;
const PROT_READ_WRITE = 3;

/** All of a file as everybody sees it. */
function map(path, byteSize) {
  const koffi = createRequire(import.meta.url)("koffi");
  const mmap = koffi
    .load(null)
    .func("uintptr_t mmap(uintptr_t addr, size_t length, int prot, int flags, int fd, int64_t offset)");
  const fd = openSync(path, "r+");
  const address = mmap(0, byteSize, PROT_READ_WRITE, MAP_SHARED, fd, 0);
  closeSync(fd);
  return new Uint8Array(koffi.view(BigInt(address), byteSize));
}

/** Adds up one byte of each page, so that what was sent is there. */
function look(bytes) {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 4096) sum += bytes[at];
  return sum & 255;
}

async function serve(way, ...args) {
  if (way === "ring") {
    const [socket, reference] = args;
    const client = await connect({ url: `unix://${socket}`, session: false });
    const answer = new Uint8Array(1);
    for await (const message of client.receiver(reference, { writable: true })) {
      answer[0] = look(message.bytes());
      message.answer(answer);
    }
    return;
  }
  const [path, size] = args;
  const byteSize = Number(size);
  const mapped = way === "mapping" ? map(path.replace(/sock$/, "map"), 4 * byteSize) : undefined;
  const buffer = Buffer.alloc(byteSize);
  let count = 0;
  const listener = createServer((socket) => {
    socket.on("data", (chunk) => {
      if (mapped !== undefined) {
        const at = byteSize * chunk[0];
        socket.write(Buffer.of(look(mapped.subarray(at, at + byteSize))));
        return;
      }
      for (let taken = 0; taken < chunk.length; ) {
        const part = Math.min(chunk.length - taken, byteSize - count);
        chunk.copy(buffer, count, taken, taken + part);
        taken += part;
        count += part;
        if (count < byteSize) continue;
        count = 0;
        socket.write(Buffer.of(look(buffer)));
      }
    });
    socket.on("close", () => process.exit());
  });
  listener.listen(path, () => process.stdout.write("there\n"));
}

const pythonWorker = `
import sys, tensord, numpy as np
client = tensord.connect(sys.argv[1], session=False)
answer = np.zeros(1, np.uint8)
for message in client.receiver(tensord.TensorReference.from_json(sys.argv[2]), writable=True):
    answer[0] = int(message.numpy()[::4096].sum()) & 255
    message.answer(answer)
`;

async function measure([socket, size, placement, node, python]) {
  const byteSize = Number(size);
  const others = placement === "two cores" ? "1" : "0";
  spawnSync("taskset", ["-cp", "0", String(process.pid)]);
  const start = async (command, isTelling) => {
    const child = spawn("taskset", ["-c", others, ...command], {
      stdio: ["ignore", isTelling ? "pipe" : "ignore", "inherit"],
      env: { ...process.env, PYTHONPATH: join(self, "../../clients/python/src") },
    });
    if (isTelling) await new Promise((resolve) => child.stdout.once("data", resolve));
    return child;
  };
  const folder = join(tmpdir(), `tensord-hand-off-${process.pid}`);
  const shared = `/dev/shm/tensord-hand-off-${process.pid}.map`;
  const client = await connect({ url: `unix://${socket}` });
  const makeRing = () => client.ring({ slots: 4, slotBytes: Math.max(byteSize, 64), ttlMs: 600_000 });
  const rings = [await makeRing(), await makeRing()];
  const children = [
    await start([node, self, "serve", "ring", socket, JSON.stringify(rings[0].ref())], false),
    await start([python, "-c", pythonWorker, `unix://${socket}`, JSON.stringify(rings[1].ref())], false),
  ];
  const fd = openSync(shared, "w+");
  ftruncateSync(fd, 4 * byteSize);
  closeSync(fd);
  const mapped = map(shared, 4 * byteSize);
  const sockets = {};
  for (const way of ["mapping", "bytes"]) {
    const path = way === "mapping" ? shared.replace(/map$/, "sock") : `${folder}.sock`;
    children.push(await start([node, self, "serve", way, path, size], true));
    sockets[way] = connectTo(path);
  }
  const ask = (way, bytes) =>
    new Promise((resolve) => {
      sockets[way].once("data", (answer) => resolve(answer[0]));
      sockets[way].write(bytes);
    });
  const source = new Uint8Array(byteSize).fill(1);
  const call = async (ring) => {
    const sent = await ring.call(source);
    const [answer] = await sent.result();
    sent.close();
    return answer;
  };
  let turn = 0;
  const ways = {
    ring: () => call(rings[0]),
    across: () => call(rings[1]),
    mapping: () => {
      turn = (turn + 1) % 4;
      mapped.set(source, turn * byteSize);
      return ask("mapping", Buffer.of(turn));
    },
    bytes: () => ask("bytes", source),
  };
  const times = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
  const rounds = byteSize > 2 ** 20 ? 20 : 2000;
  const warmUp = rounds / 4;
  const want = look(source);
  // A block of each in turns: who alternates message by message measures who sleeps in between.
  const block = Math.min(rounds, 50);
  for (let done = -warmUp; done < rounds; done += block) {
    for (const [way, action] of Object.entries(ways)) {
      for (let left = block; left > 0; left--) {
        const begin = process.hrtime.bigint();
        const answer = await action();
        if (done >= 0) times[way].push(Number(process.hrtime.bigint() - begin) / 1000);
        if (answer !== want) throw new Error(`${way} answered ${answer}, want ${want}`);
      }
    }
  }
  for (const child of children) child.kill();
  for (const path of [shared, shared.replace(/map$/, "sock"), `${folder}.sock`]) rmSync(path, { force: true });
  for (const ring of rings) ring.close();
  for (const each of Object.values(sockets)) each.destroy();
  client.close();
  process.stdout.write(`${JSON.stringify(times)}\n`);
}

const [first, ...rest] = process.argv.slice(2);
await (first === "serve" ? serve(...rest) : measure([first, ...rest]));
