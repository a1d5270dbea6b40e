/**
 * A program that opens connections which never bring a whole request, so many at once, until it has opened enough of them and its input has
 * ended. Each is kept until the server ends it; then the next one is opened. At the end it closes the last ones, and prints how many
 * were ended.
 */

import { connect, type NetConnectOpts, type Socket } from "node:net";

/** What a connection sends, and how it goes on. */
export const halves = {
  /** A head that does not end. */
  head: "GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
  /** One that grows by a letter at a time. */
  slow: "GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
  /** A body that does not come. */
  body: "POST /v1/regions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
} as const;

export type Half = keyof typeof halves;

const letterMs = 100;

function parse([half = "", total = "", width = "", where = ""]: readonly string[]) {
  const port = Number(where);
  const door: NetConnectOpts = Number.isInteger(port) ? { host: "127.0.0.1", port } : { path: where };
  return { half: half as Half, total: Number(total), width: Number(width), door };
}

/** Resolves when the server has ended the connection. */
function open(half: Half, door: NetConnectOpts, opened: Set<Socket>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket: Socket = connect(door, () => socket.write(halves[half]));
  opened.add(socket);
  const timer = half === "slow" ? setInterval(() => socket.write("x"), letterMs) : undefined;
  // What it answers, to a body that did not come, is read and not looked at.
  socket.resume();
  socket.on("error", () => {});
  socket.on("close", () => {
    clearInterval(timer);
    opened.delete(socket);
    resolve();
  });
  return promise;
}

if (import.meta.main) {
  const { half, total, width, door } = parse(process.argv.slice(2));
  const opened = new Set<Socket>();
  let count = 0;
  let ended = 0;
  let isEnough = false;
  process.stdin.on("end", () => (isEnough = true)).resume();
  const one = async () => {
    while (count < total || !isEnough) {
      count += 1;
      await open(half, door, opened);
      ended += 1;
    }
    // Those of the others that nobody needs to end.
    for (const socket of opened) socket.destroy();
  };
  await Promise.race(Array.from({ length: width }, one));
  console.log(ended);
  process.exit();
}
