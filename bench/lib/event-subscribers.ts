/**
 * Many subscribers in a process of their own, over WebSockets on a Unix socket. A line on standard input asks for what came
 * since the last one: how many frames, and how long after the time in its event's labels each of them came.
 *
 * Usage: event-subscribers.ts <socket> <subscribers>
 */

import { createInterface } from "node:readline";
import { summarize } from "./statistics.ts";

/** The wall clock in ms, finer than `Date.now()`; the same in every process of the machine. */
export function clockMs(): number {
  return performance.timeOrigin + performance.now();
}

/** As many as fit into a socket's backlog. */
const openedAtOnce = 100;

const dueAt = /"due_at":"([\d.]+)"/;

class Deliveries {
  #ms: number[] = [];
  #frames = 0;
  #lastText = "";
  #lastDueAt = 0;

  take(text: string): void {
    const now = clockMs();
    // All get the same texts, one after another: most are looked at once.
    if (text !== this.#lastText) {
      this.#lastText = text;
      this.#lastDueAt = Number(dueAt.exec(text)?.[1]);
    }
    // The stream's own frames carry no clock.
    if (Number.isNaN(this.#lastDueAt)) return;
    this.#frames += 1;
    this.#ms.push(now - this.#lastDueAt);
  }

  tell(): object {
    const told = { frames: this.#frames, ...summarize(this.#ms) };
    this.#ms = [];
    this.#frames = 0;
    return told;
  }
}

function open(socket: string, deliveries: Deliveries): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const webSocket = new WebSocket(`ws+unix://${socket}:/v1/events/ws`);
  webSocket.onopen = () => resolve();
  webSocket.onmessage = ({ data }) => deliveries.take(data as string);
  webSocket.onclose = ({ code }) => {
    reject(new Error(`closed with ${code}`));
    process.exit(1);
  };
  return promise;
}

async function follow(socket: string, count: number): Promise<void> {
  const deliveries = new Deliveries();
  for (let opened = 0; opened < count; opened += openedAtOnce) {
    await Promise.all(Array.from({ length: Math.min(openedAtOnce, count - opened) }, () => open(socket, deliveries)));
  }
  process.stdout.write("{}\n");
  createInterface(process.stdin)
    .on("line", () => process.stdout.write(`${JSON.stringify(deliveries.tell())}\n`))
    .on("close", () => process.exit(0));
}

if (import.meta.main) await follow(process.argv[2] ?? "", Number(process.argv[3]));
