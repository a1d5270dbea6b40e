/**
 * A subscriber that goes away at random and comes back to its position behind the last frame. It keeps everything that it got,
 * connection by connection, and knows what it must have got.
 */

import { expect } from "bun:test";
import { type EventFrame, positionOf } from "./event-frame.ts";
import type { Random } from "./instance-random.ts";
import { until } from "./server-wait.ts";
import { type Channel, type Following, Subscriber } from "./subscriber.ts";

/** One connection: the server's life in which it was opened, and what it got. */
interface Visit {
  readonly crashes: number;
  readonly frames: readonly EventFrame[];
}

export class Wanderer {
  readonly #target: string;
  readonly #channel: Channel;
  readonly #filter: Omit<Following, "after">;
  readonly #random: Random;
  readonly #visits: Visit[] = [];

  constructor(target: string, channel: Channel, filter: Omit<Following, "after">, random: Random) {
    this.#target = target;
    this.#channel = channel;
    this.#filter = filter;
    this.#random = random;
  }

  get frames(): EventFrame[] {
    return this.#visits.flatMap(({ frames }) => frames);
  }

  get visits(): number {
    return this.#visits.length;
  }

  /** The position behind the last frame, where it resumes; undefined before the first. */
  get lastId(): string | undefined {
    return toLastId(this.#visits.at(-1)?.frames ?? []);
  }

  /** Comes and goes until the server ends. `crashes` is how often it did so without order before. */
  async wander(crashes: number): Promise<void> {
    for (;;) {
      const subscriber = await this.#open(crashes);
      if (subscriber === undefined) return;
      const enough = subscriber.frames.length + this.#random.integer(0, 40);
      await until("some frames come", () => subscriber.frames.length > enough || !subscriber.isOpen, 60_000);
      const hasServer = subscriber.isOpen;
      await subscriber.close();
      if (!hasServer) return;
    }
  }

  /** Stays until it has the event `id`. */
  async catchUp(crashes: number, id: string): Promise<void> {
    const subscriber = await this.#open(crashes);
    if (subscriber === undefined) throw new Error("there is no server");
    await subscriber.untilId(id);
    await subscriber.close();
  }

  async #open(crashes: number): Promise<Subscriber | undefined> {
    const { lastId } = this;
    const after = lastId === undefined ? {} : { after: lastId };
    try {
      const subscriber = await Subscriber.open(this.#target, this.#channel, { ...this.#filter, ...after });
      // Filled on while it is open; nobody looks before it is closed.
      this.#visits.push({ crashes, frames: subscriber.frames });
      return subscriber;
    } catch {
      return undefined;
    }
  }

  passes({ type, data }: EventFrame): boolean {
    const { model, types } = this.#filter;
    if (types !== undefined && !types.split(",").some((prefix) => type.startsWith(prefix))) return false;
    return model === undefined || (type.startsWith("tensord.model.") ? data.name : data.model) === model;
  }

  /**
   * Asserts that it got, from each place to the next, exactly what was told there and passes its filter, and was told of a
   * gap where the server crashed and nowhere else.
   * @param told every event that anybody heard of, by its number.
   */
  check(told: ReadonlyMap<number, EventFrame>): void {
    let last: string | undefined;
    let crashes = this.#visits[0]?.crashes ?? 0;
    for (const visit of this.#visits) {
      const who = `${this.#channel} ${JSON.stringify(this.#filter)} after ${last}`;
      const [opened, second] = visit.frames;
      expect(opened?.type, who).toBe("tensord.stream.opened");
      if (last !== undefined) expect(opened?.data.after, `${who} resumes where it was`).toBe(last);
      const gaps = visit.frames.filter(({ type }) => type === "tensord.stream.gap");
      // Gone again before the gap came: then the next connection is told.
      const isTold = visit.frames.length > 1;
      const isGap = visit.crashes > crashes && isTold;
      expect(gaps, `${who} is told of ${isGap ? "one gap" : "no gap"}`).toEqual(isGap ? [second as EventFrame] : []);
      if (isTold) crashes = visit.crashes;
      if (isGap) expect(second?.data.requested_after, who).toBe(last);
      const events = visit.frames.slice(isGap ? 2 : 1);
      const from = Number((isGap ? second : opened)?.data.after);
      expect(toIds(events), `${who} got what was told from ${from} on`).toEqual(this.#expected(told, from, events));
      last = toLastId(visit.frames);
    }
  }

  #expected(told: ReadonlyMap<number, EventFrame>, from: number, events: readonly EventFrame[]): number[] {
    const to = Number(events.at(-1)?.id ?? from);
    const ids = Array.from({ length: to - from }, (_, index) => from + 1 + index);
    return ids.filter((id) => {
      const event = told.get(id);
      return event !== undefined && this.passes(event);
    });
  }
}

function toLastId(frames: readonly EventFrame[]): string | undefined {
  const last = frames.at(-1);
  return last === undefined ? undefined : positionOf(last);
}

function toIds(frames: readonly EventFrame[]): number[] {
  return frames.map(({ id }) => Number(id));
}
