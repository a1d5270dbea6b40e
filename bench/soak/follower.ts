/** One subscriber from the beginning to the end: what it knows by then must be that nothing is there any more. */

import { until } from "../../tests/harness/server-wait.ts";
import type { Heard } from "./judge.ts";

/** As much of an event as is followed here. */
interface FollowedEvent {
  readonly id: string;
  readonly type: string;
  /** The region or session that it tells of. */
  readonly subject?: string;
  readonly data: { readonly name?: string | null };
}

export class SoakFollower implements Heard {
  /** Settles with the first event. */
  readonly opened: Promise<void>;
  readonly #socket: WebSocket;
  #lastId = 0;
  /** What happened to each region last. */
  readonly #regions = new Map<string, string>();
  readonly #sessions = new Set<string>();
  /** Seals of each claimed name's regions that stand. */
  readonly #built = new Map<string, string>();
  count = 0;
  gaps = 0;
  /** Events that cannot follow what came before. */
  readonly contradictions: string[] = [];
  repeatedBuilds = 0;

  constructor(socket: string) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.opened = promise;
    this.#socket = new WebSocket(`ws+unix://${socket}:/v1/events/ws`);
    this.#socket.onmessage = ({ data }) => {
      this.#take(JSON.parse(data) as FollowedEvent);
      resolve();
    };
    this.#socket.onclose = ({ code }) => {
      this.contradictions.push(`closed with ${code}`);
      reject(new Error(`the event stream closed with ${code}`));
    };
  }

  #take({ id, type, subject = "", data }: FollowedEvent): void {
    this.count += 1;
    const [, what, how = ""] = type.split(".");
    if (what !== "stream") {
      if (Number(id) <= this.#lastId) this.#contradict(`${id} after ${this.#lastId}`);
      this.#lastId = Number(id);
    }
    if (how === "gap") this.gaps += 1;
    if (what === "region") this.#takeRegion(subject, how, data.name);
    if (what === "session" && how === "opened") this.#sessions.add(subject);
    if (what === "session" && how === "ended" && !this.#sessions.delete(subject)) {
      this.#contradict(`${subject} ended without having been opened`);
    }
  }

  #takeRegion(id: string, how: string, name: string | null | undefined): void {
    const known = this.#regions.get(id);
    if ((known === undefined) !== (how === "allocated")) this.#contradict(`${id} ${how}, and it was ${known}`);
    if (how === "deleted") this.#regions.delete(id);
    else this.#regions.set(id, how);
    if (!name?.startsWith("claimed")) return;
    if (how === "sealed") {
      if (this.#built.has(name)) this.repeatedBuilds += 1;
      this.#built.set(name, id);
    } else if (how === "draining" && this.#built.get(name) === id) this.#built.delete(name);
  }

  #contradict(what: string): void {
    if (this.contradictions.length < 20) this.contradictions.push(what);
  }

  /** What it believes is there still. */
  get left(): number {
    return this.#regions.size + this.#sessions.size;
  }

  /** Waits for the last events, which come a moment after what they tell. */
  async untilQuiet(): Promise<void> {
    await until("the follower has heard of every end", () => this.left === 0).catch(() => {});
  }

  close(): void {
    this.#socket.onclose = null;
    this.#socket.close();
  }
}
