/** One subscriber from the beginning to the end: what it knows by then must be that nothing is there any more. */

import { until } from "../../tests/harness/server-wait.ts";

export class SoakFollower {
  #socket;
  #lastId = 0;
  #regions = new Map();
  #sessions = new Set();
  /** Seals of each claimed name's regions that stand. */
  #built = new Map();
  count = 0;
  gaps = 0;
  /** Events that cannot follow what came before. */
  contradictions = [];
  repeatedBuilds = 0;

  constructor(socket) {
    const { promise, resolve, reject } = Promise.withResolvers();
    this.opened = promise;
    this.#socket = new WebSocket(`ws+unix://${socket}:/v1/events/ws`);
    this.#socket.onmessage = ({ data }) => {
      this.#take(JSON.parse(data));
      resolve();
    };
    this.#socket.onclose = ({ code }) => {
      this.contradictions.push(`closed with ${code}`);
      reject(new Error(`the event stream closed with ${code}`));
    };
  }

  #take({ id, type, subject, data }) {
    if (Number(id) <= this.#lastId && type !== "tensord.stream.gap") this.#contradict(`${id} after ${this.#lastId}`);
    this.#lastId = Number(id);
    this.count += 1;
    const [, what, how] = type.split(".");
    if (how === "gap") this.gaps += 1;
    if (what === "region") this.#takeRegion(subject, how, data);
    if (what === "session" && how === "opened") this.#sessions.add(subject ?? data.id);
    if (what === "session" && how === "ended" && !this.#sessions.delete(subject ?? data.id)) {
      this.#contradict(`${data.id} ended without having been opened`);
    }
  }

  #takeRegion(id, how, { name }) {
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

  #contradict(what) {
    if (this.contradictions.length < 20) this.contradictions.push(what);
  }

  /** What it believes is there still. */
  get left() {
    return this.#regions.size + this.#sessions.size;
  }

  /** Waits for the last events, which come a moment after what they tell. */
  async untilQuiet() {
    await until("the follower has heard of every end", () => this.left === 0).catch(() => {});
  }

  close() {
    this.#socket.onclose = null;
    this.#socket.close();
  }
}
