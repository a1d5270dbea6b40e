/**
 * The Node half of attach-node.ts: rounds of every way to map a region, one after another, in one process.
 * Usage: attach.mjs <socket> <name> <version> [rounds]. Prints one JSON object of lists of microseconds.
 */

import { chmodSync, closeSync, constants, fstatSync, lstatSync, openSync } from "node:fs";
import { Agent, request } from "node:http";
import { createRequire } from "node:module";
import { connect as connectTo } from "node:net";

const begin = performance.now();
const { connect } = await import("../clients/node/dist/index.js");
const importMs = performance.now() - begin;

const [socketPath, name, version, count = "3000"] = process.argv.slice(2);
const rounds = Number(count);
const warmUp = Math.min(500, rounds);
const client = await connect({ url: `unix://${socketPath}` });
const descriptor = await client.get(name, { version });
const { path: file, byteSize } = descriptor.storage;
const path = `/v1/models/default/regions/${name}`;
const headers = { accept: "application/json", prefer: "attach" };

const koffi = createRequire(import.meta.url)("koffi");
const libc = koffi.load(null);
const mmap = libc.func("uintptr_t mmap(uintptr_t addr, size_t length, int prot, int flags, int fd, int64_t offset)");
const munmap = libc.func("int munmap(uintptr_t addr, size_t length)");
const fcntl = libc.func("int fcntl(int fd, int op, void *arg)");

/** What the protocol asks of a reader: open, lock, look, map; and its end. */
function mapBare() {
  const fd = openSync(file, constants.O_RDONLY);
  const lock = Buffer.alloc(32);
  lock.writeBigInt64LE(1n << 62n, 8);
  lock.writeBigInt64LE(1n, 16);
  fcntl(fd, 37, lock);
  fstatSync(fd, { bigint: true });
  lstatSync(file, { bigint: true });
  const address = mmap(0, byteSize, 1, 1, fd, 0);
  closeSync(fd);
  munmap(address, byteSize);
}

/** The least that an exchange can be: one write, one answer of a known form, JSON. */
const socket = connectTo(socketPath);
let seen = Buffer.alloc(0);
let answered = () => {};
socket.on("data", (chunk) => {
  seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
  const at = seen.indexOf("\r\n\r\n");
  const [, length] = /content-length: (\d+)/i.exec(seen.toString("latin1", 0, at)) ?? [];
  if (at < 0 || seen.length < at + 4 + Number(length)) return;
  const body = JSON.parse(seen.toString("utf8", at + 4));
  seen = Buffer.alloc(0);
  answered(body);
});
const head = `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nPrefer: attach\r\n\r\n`;
const askRaw = () =>
  new Promise((resolve) => {
    answered = resolve;
    socket.write(head);
  });

const agent = new Agent({ keepAlive: true });
const askByLibrary = () =>
  new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, agent, headers }, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => resolve(JSON.parse(Buffer.concat(chunks).toString())));
    });
    sent.on("error", reject);
    sent.end();
  });

/** Whether the file says, by its current mark, that the name means it still: without it the client asks. */
const mark = (isMarked) => chmodSync(file, isMarked ? 0o1540 : 0o1440);
const before = { name: () => mark(true), asked: () => mark(false) };

const ways = {
  name: async () => (await client.attach(name)).close(),
  asked: async () => (await client.attach(name)).close(),
  rawAndBare: async () => {
    await askRaw();
    mapBare();
  },
  version: async () => (await client.attach(name, { version })).close(),
  bare: async () => mapBare(),
  httpAndBare: async () => {
    await askByLibrary();
    mapBare();
  },
  descriptor: async () => (await client.attach(descriptor)).close(),
};
const times = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
for (let round = 0; round < warmUp + rounds; round++) {
  for (const [way, action] of Object.entries(ways)) {
    before[way]?.();
    const start = process.hrtime.bigint();
    await action();
    if (round >= warmUp) times[way].push(Number(process.hrtime.bigint() - start) / 1000);
  }
}
client.close();
agent.destroy();
socket.destroy();
console.log(JSON.stringify({ ...times, importMs }));
