/** Events by the thousand, each told by a request of its own: the labels of one region, changed over many connections. */

import type { Socket } from "bun";
import { within } from "./server-wait.ts";

const connections = 16;
/** What 100,000 requests may take on a machine with much else to do, and less than after which a sleeper is closed. */
const deadlineMs = 55_000;

/** Changes the region's labels `count` times over the Unix socket `unix`. Each change is one event. */
export async function changeLabels(unix: string, region: string, count: number): Promise<void> {
  const body = JSON.stringify({ labels: { load: "x".repeat(100) } });
  const head = `PATCH /v1/regions/${region} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`;
  const request = Buffer.from(`${head}Content-Length: ${body.length}\r\n\r\n${body}`);
  let left = count;
  async function change(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const next = (socket: Socket) => {
      left -= 1;
      if (left >= 0) return void socket.write(request);
      resolve();
      socket.end();
    };
    await Bun.connect({
      unix,
      socket: {
        open: next,
        data(socket, answer) {
          // An answer is small enough to come in one piece, and begins with its status.
          const status = answer.toString("latin1", 0, 12);
          if (status === "HTTP/1.1 200") next(socket);
          else reject(new Error(`answered ${answer.toString()}`));
        },
        close: () => reject(new Error("the server closed a connection under load")),
      },
    });
    await promise;
  }
  const all = Promise.all(Array.from({ length: connections }, change));
  await within(`${count} changes of labels`, all, deadlineMs);
}
