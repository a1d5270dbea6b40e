/** Sockets that keep the borders of messages and carry descriptors, as the kernel has them: a pair of them in one process. */

import { expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readlinkSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  addToPoll,
  createPipe,
  createPoll,
  PollReport,
  pollEvents,
  removeFromPoll,
} from "../../src/memory/os/libc-poll.ts";
import { setPollEvents } from "../../src/memory/os/libc-sockets.ts";
import {
  acceptConnection,
  connectForMessages,
  endOneWay,
  listenForMessages,
  messageBytes,
  messageDescriptors,
  readPeerCredentials,
  readUnread,
  receiveMessage,
  sendMessage,
} from "../../src/memory/os/libc-unix.ts";
import { createSealedFile } from "../../src/memory/os/sealed-file.ts";
import { openBelow } from "../harness/open-files.ts";

/** Descriptors of what this one is of. */
const countOpen = (fd: number) => openBelow(readlinkSync(`/proc/self/fd/${fd}`)).length;

/** Both ends of a connection. */
function withPair(use: (client: number, server: number) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "tensord-unix-"));
  const path = join(folder, "socket");
  const open: number[] = [];
  try {
    const listener = listenForMessages(path, 8);
    open.push(listener);
    expect(acceptConnection(listener)).toBeUndefined();
    const client = connectForMessages(path) ?? -1;
    open.push(client);
    const server = acceptConnection(listener) ?? -1;
    open.push(server);
    use(client, server);
  } finally {
    for (const fd of open) closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

/** What came, which the next message would overwrite. */
function read(fd: number, most?: number) {
  const message = receiveMessage(fd, most);
  if (message === undefined || message === "gone") return message;
  return { ...message, text: message.bytes.toString() };
}

test("messages keep their borders, an empty one too, and nothing waits for one that is not there", () => {
  withPair((client, server) => {
    expect(read(server)).toBeUndefined();
    for (const text of ["one", "", "zwei 🙂"]) expect(sendMessage(client, text)).toBe("sent");
    expect(sendMessage(client, Buffer.from([0, 255]))).toBe("sent");
    for (const text of ["one", "", "zwei 🙂"])
      expect(read(server)).toMatchObject({ text, isCut: false, isShort: false });
    expect(read(server)?.valueOf()).toMatchObject({ bytes: Buffer.from([0, 255]), descriptors: [] });
    expect(read(server)).toBeUndefined();
  });
});

test("descriptors travel, as many as a message may carry, and are the same open files", () => {
  withPair((client, server) => {
    const sent = createSealedFile("test", Buffer.from("hello"));
    for (const count of [1, 2, 3, messageDescriptors]) {
      sendMessage(
        client,
        "x",
        Array.from({ length: count }, () => sent),
      );
      const message = read(server, messageDescriptors);
      const descriptors = typeof message === "object" ? message.descriptors : [];
      expect(descriptors.length).toBe(count);
      for (const fd of descriptors) {
        expect(fstatSync(fd).ino).toBe(fstatSync(sent).ino);
        closeSync(fd);
      }
    }
    closeSync(sent);
  });
});

test("descriptors that nobody wants are opened by nobody, and it is told that there were some", () => {
  withPair((client, server) => {
    const before = countOpen(client);
    sendMessage(client, "x", [client, client, client]);
    expect(read(server)).toMatchObject({ text: "x", descriptors: [], isShort: true });
    sendMessage(client, "y", [client, client, client]);
    const short = read(server, 2);
    const descriptors = typeof short === "object" ? short.descriptors : [];
    expect([descriptors.length, typeof short === "object" && short.isShort]).toEqual([2, true]);
    for (const fd of descriptors) closeSync(fd);
    expect(countOpen(client)).toBe(before);
  });
});

test("a peer that reads nothing fills its connection, and room is told by the poll", () => {
  withPair((client, server) => {
    const frame = Buffer.alloc(messageBytes, 1);
    let count = 0;
    while (sendMessage(server, frame) === "sent") count += 1;
    expect(count).toBeGreaterThan(0);
    expect(readUnread(server)).toBeGreaterThan(count * messageBytes);
    const epoll = createPoll();
    const report = new PollReport(8);
    addToPoll(epoll, server, pollEvents.writable, 7);
    report.wait(epoll, 0);
    expect([...report]).toEqual([]);
    for (let left = count; left > 0; left--) expect(read(client)).toMatchObject({ isCut: false });
    report.wait(epoll, -1);
    expect([...report]).toEqual([{ events: pollEvents.writable, data: 7 }]);
    expect(readUnread(server)).toBe(0);
    closeSync(epoll);
  });
});

test("what is longer than a message is cut, and says so", () => {
  withPair((client, server) => {
    expect(() => sendMessage(client, "é".repeat(messageBytes))).toThrow("too long");
    expect(() => sendMessage(client, Buffer.alloc(messageBytes + 1))).toThrow();
    sendMessage(client, "x".repeat(messageBytes));
    expect(read(server)).toMatchObject({ isCut: false });
  });
});

test("the end of a peer is an empty message, an event, and a message that cannot be sent", () => {
  withPair((client, server) => {
    const epoll = createPoll();
    const report = new PollReport(8);
    const data = 2 ** 32 - 1;
    addToPoll(epoll, server, 0, data);
    endOneWay(client, "sending");
    report.wait(epoll, 0);
    expect([...report]).toEqual([]);
    setPollEvents(epoll, server, pollEvents.readable | pollEvents.peerEnded, BigInt(data));
    report.wait(epoll, 0);
    expect([...report]).toEqual([{ events: pollEvents.readable | pollEvents.peerEnded, data }]);
    expect(read(server)).toMatchObject({ text: "", isShort: false });
    expect(sendMessage(server, "still")).toBe("sent");
    expect(read(client)).toMatchObject({ text: "still" });
    endOneWay(client, "receiving");
    expect(sendMessage(server, "more")).toBe("gone");
    removeFromPoll(epoll, server);
    report.wait(epoll, 0);
    expect([...report]).toEqual([]);
    closeSync(epoll);
  });
});

test("the kernel tells who connected", () => {
  withPair((_, server) => {
    const [pid, uid, gid] = [process.pid, process.getuid?.() ?? -1, process.getgid?.() ?? -1];
    expect(readPeerCredentials(server)).toEqual({ pid, uid, gid });
  });
});

test("where nobody listens there is no connection, and what is no such socket is an error", () => {
  expect(connectForMessages("/nowhere/socket")).toBeUndefined();
  expect(() => connectForMessages(`/${"x".repeat(108)}`)).toThrow("too long");
  expect(() => listenForMessages("/nowhere/socket", 8)).toThrow("ENOENT");
  expect(() => readUnread(0)).toThrow();
  expect(existsSync("/nowhere")).toBeFalse();
});

test("a pipe keeps what was written until it is read, and neither end waits", () => {
  const { readEnd, writeEnd } = createPipe();
  const bytes = Buffer.alloc(8);
  expect(() => readSync(readEnd, bytes)).toThrow("EAGAIN");
  expect(writeSync(writeEnd, Buffer.from("word"))).toBe(4);
  expect(readSync(readEnd, bytes)).toBe(4);
  closeSync(readEnd);
  closeSync(writeEnd);
});

test("a sealed file has its bytes, and can neither be written, cut, grown nor unsealed", () => {
  const fd = createSealedFile("test", Buffer.from("hello"));
  try {
    const again = openSync(`/proc/self/fd/${fd}`, "r+");
    const bytes = Buffer.alloc(5);
    expect([readSync(fd, bytes, 0, 5, 0), bytes.toString()]).toEqual([5, "hello"]);
    for (const change of [
      () => writeSync(fd, "x", 0),
      () => writeSync(fd, "x", 5),
      () => ftruncateSync(fd, 1),
      () => ftruncateSync(fd, 100),
      () => writeSync(again, "x", 0),
    ]) {
      expect(change).toThrow("EPERM");
    }
    closeSync(again);
  } finally {
    closeSync(fd);
  }
});
