/** Calls to the C library that nothing else shows by itself: positions that descriptors share, and sockets that listen. */

import { expect, test } from "bun:test";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isListening, readPosition, seek, setSocketBuffer, trySeek } from "../../src/memory/os/libc.ts";

/** A file of nothing, and its descriptor. */
function withFile(check: (fd: number, path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "tensord-libc-"));
  const path = join(folder, "file");
  const fd = openSync(path, "w+");
  try {
    check(fd, path);
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

/** A server that listens on loopback, and its descriptor, which the runtime does not tell. */
async function listen(): Promise<{ server: Server; fd: number }> {
  const listening = () => readdirSync("/proc/self/fd").map(Number).filter(isListening);
  const before = listening();
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const [fd] = listening().filter((each) => !before.includes(each));
  if (fd === undefined) throw new Error("no descriptor listens");
  return { server, fd };
}

test("a position that is set is where the next write goes, and is told", () => {
  withFile((fd, path) => {
    seek(fd, 4096);
    writeSync(fd, "after");
    expect(readPosition(fd)).toBe(4101);
    expect(readFileSync(path).length).toBe(4101);
  });
});

test("an offset that the file system does not know moves nothing", () => {
  withFile((fd) => {
    seek(fd, 7);
    // Whether it is known hangs on the file system: tmpfs takes the largest there is, ext4 does not.
    const isMoved = trySeek(fd, 2n ** 63n - 1n);
    expect(readPosition(fd)).toBe(isMoved ? Number(2n ** 63n - 1n) : 7);
  });
});

test("a position before the file or past every file is our own mistake", () => {
  withFile((fd) => {
    for (const offset of [-1, 2 ** 63]) expect(() => seek(fd, offset)).toThrow("not a file offset");
    expect(() => trySeek(fd, 2n ** 63n)).toThrow("not a file offset");
    expect(readPosition(fd)).toBe(0);
  });
});

test("a seek on what has no position says the call and the errno", async () => {
  const { server, fd } = await listen();
  await using _ = server;
  expect(() => readPosition(fd)).toThrow("lseek: ESPIPE");
});

test("only a socket that listens is said to listen", async () => {
  const { server, fd } = await listen();
  await using _ = server;
  expect(isListening(fd)).toBeTrue();
  const before = readdirSync("/proc/self/fd").map(Number);
  const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
  await once(client, "connect");
  const connected = readdirSync("/proc/self/fd").filter((each) => !before.includes(Number(each)));
  expect(connected.length).toBeGreaterThan(0);
  expect(connected.map(Number).filter(isListening)).toEqual([]);
  withFile((file) => expect(isListening(file)).toBeFalse());
  // Closed, as a descriptor may be by the time that a list of them is looked at.
  expect(isListening(2 ** 31 - 1)).toBeFalse();
  client.destroy();
});

test("a socket's buffers can be bounded, a file's cannot", async () => {
  const { server, fd } = await listen();
  await using _ = server;
  for (const direction of ["receive", "send"] as const) {
    setSocketBuffer(fd, direction, 65_536);
    expect(() => setSocketBuffer(fd, direction, 0)).toThrow("not a buffer's size");
    withFile((file) => expect(() => setSocketBuffer(file, direction, 65_536)).toThrow("ENOTSOCK"));
  }
});
