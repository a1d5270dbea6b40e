/** Who is fed when: subscribers that take and refuse at random, one that takes nothing, and a thousand at once. */

import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { EventCursor, type EventFilter, type EventGap } from "../../src/memory/events/event-cursor.ts";
import { EventFeeder, type Subscriber } from "../../src/memory/events/event-feeder.ts";
import { EventLog, type KeptEvent } from "../../src/memory/events/event-log.ts";
import { limits } from "../../src/memory/limits.ts";

const start = 1_795_000_000_000_000;
const types = ["tensord.region.sealed", "tensord.model.changed"] as const;

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Takes as many frames as it has room for. */
class FakeSubscriber implements Subscriber {
  readonly cursor: EventCursor;
  readonly got: (KeptEvent | EventGap)[] = [];
  room: number;
  isEnded = false;
  readonly #onSend: (subscriber: FakeSubscriber) => void;

  constructor(cursor: EventCursor, room = Number.POSITIVE_INFINITY, onSend: (it: FakeSubscriber) => void = () => {}) {
    this.cursor = cursor;
    this.room = room;
    this.#onSend = onSend;
  }

  send(found: KeptEvent | EventGap): boolean {
    if (this.room <= 0) throw new Error("was sent more than it takes");
    this.got.push(found);
    this.room -= 1;
    this.#onSend(this);
    return this.room > 0;
  }

  endStalled(): void {
    this.isEnded = true;
  }

  get sequences(): number[] {
    return this.got.map((found) => ("sequence" in found ? found.sequence : Number.NaN));
  }
}

let log: EventLog;
let feeder: EventFeeder;

beforeEach(() => {
  log = new EventLog({ next: start, events: [] }, () => true);
  feeder = new EventFeeder(log);
});

afterEach(() => feeder[Symbol.dispose]());

function append(count: number): void {
  for (let index = 0; index < count; index++)
    log.append(types[index % 2] ?? "", { model: "default", session: null }, String);
}

function add(filter: EventFilter = {}, room?: number, onSend?: (it: FakeSubscriber) => void): FakeSubscriber {
  const subscriber = new FakeSubscriber(new EventCursor(log, filter, undefined), room, onSend);
  feeder.add(subscriber);
  return subscriber;
}

function range(count: number, from = start): number[] {
  return Array.from({ length: count }, (_, index) => from + index);
}

/** Gives everybody a turn until all of them stand at the newest event. A fed log needs a bounded number of turns. */
async function untilFed(subscribers: readonly FakeSubscriber[]): Promise<void> {
  for (let turns = 0; subscribers.some(({ cursor }) => cursor.isBehind); turns++) {
    if (turns > 100_000) throw new Error("somebody is never fed");
    await nextTurn();
  }
}

describe("the feeder", () => {
  test("gives subscribers that pause and resume at random every event once, in order", async () => {
    const step = fc.record({
      do: fc.constantFrom("append", "resume", "turn"),
      who: fc.integer({ min: 0, max: 9 }),
      count: fc.integer({ min: 1, max: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
        const begin = log.last;
        const all = Array.from({ length: 10 }, (_, index) =>
          add(index % 3 === 0 ? { types: [types[0]] } : {}, index + 1),
        );
        for (const { do: what, who, count } of steps) {
          const one = all[who];
          if (what === "append") append(count);
          else if (what === "turn") await nextTurn();
          else if (one !== undefined) give(one, count);
        }
        for (const one of all) give(one, Number.POSITIVE_INFINITY);
        await untilFed(all);
        const told = log.history().events.filter(({ sequence }) => sequence > begin);
        for (const [index, one] of all.entries()) {
          const wanted = index % 3 === 0 ? told.filter(({ type }) => type === types[0]) : told;
          expect(one.got).toEqual(wanted);
          feeder.remove(one);
        }
      }),
      { numRuns: 40 },
    );
  });

  /** More room, told as a transport tells it: only by one that had none. */
  function give(subscriber: FakeSubscriber, room: number): void {
    const wasFull = subscriber.room <= 0;
    subscriber.room += room;
    if (wasFull) feeder.resume(subscriber);
  }

  test("delays nobody for one that takes nothing, and tells that one of a gap when it wakes", async () => {
    const sleeping = add({}, 1);
    const awake = add();
    for (let count = 0; count < limits.keptEvents + 500; count += 500) {
      append(500);
      await untilFed([awake]);
    }
    expect(awake.sequences).toEqual(range(limits.keptEvents + 500));
    expect(sleeping.sequences).toEqual([start]);
    give(sleeping, Number.POSITIVE_INFINITY);
    await untilFed([sleeping]);
    expect(sleeping.got[1]).toEqual({ requestedAfter: start, firstAvailable: start + 500 });
    expect(sleeping.sequences.slice(2)).toEqual(range(limits.keptEvents, start + 500));
  });

  test("gives each a few frames in a row, so that one far behind keeps nobody waiting", async () => {
    const order: FakeSubscriber[] = [];
    const all = range(3).map(() => add({}, undefined, (it) => order.push(it)));
    append(400);
    await untilFed(all);
    expect(order.length).toBe(1200);
    let inRow = 0;
    for (const [index, one] of order.entries()) {
      inRow = one === order[index - 1] ? inRow + 1 : 1;
      expect(inRow).toBeLessThanOrEqual(limits.eventVisit);
    }
  });

  test("leaves the event loop after a slice, with a thousand subscribers as with one", async () => {
    let inTurn = 0;
    let most = 0;
    const all = range(1000).map(() =>
      add({}, undefined, () => {
        inTurn += 1;
        most = Math.max(most, inTurn);
      }),
    );
    append(50);
    for (let turns = 0; all.some(({ cursor }) => cursor.isBehind); turns++) {
      if (turns > 10_000) throw new Error("somebody is never fed");
      inTurn = 0;
      await nextTurn();
    }
    for (const one of all) expect(one.sequences).toEqual(range(50));
    // The last visit of a slice may go on to its own end.
    expect(most).toBeLessThanOrEqual(limits.eventSlice + limits.eventVisit);
    expect(most).toBeGreaterThan(1);
  });

  test("sends nothing more to one that is removed while it is fed, and everything to the others", async () => {
    const leaving: FakeSubscriber = add({}, undefined, (it) => {
      if (it.got.length < 5) return;
      it.room = 0;
      feeder.remove(it);
    });
    const staying = add();
    append(100);
    await untilFed([staying]);
    await nextTurn();
    expect(leaving.sequences).toEqual(range(5));
    expect(staying.sequences).toEqual(range(100));
    expect(feeder.size).toBe(1);
    feeder.resume(leaving);
    append(1);
    await untilFed([staying]);
    expect(leaving.sequences).toEqual(range(5));
  });

  test("feeds one that is added while others are fed, from where it stands", async () => {
    const first = add();
    append(100);
    await nextTurn();
    const second = add();
    const third = new FakeSubscriber(new EventCursor(log, {}, start + 49));
    feeder.add(third);
    append(10);
    await untilFed([first, second, third]);
    expect(first.sequences).toEqual(range(110));
    expect(second.sequences).toEqual(range(10, start + 100));
    expect(third.sequences).toEqual(range(60, start + 50));
  });

  test("looks through long stretches that a filter leaves out without being woken again", async () => {
    const waiting = add({ types: ["tensord.stream."] });
    append(5 * limits.eventScan + 1);
    await untilFed([waiting]);
    expect(waiting.got).toEqual([]);
  });

  test("refuses more than it can follow, and says what to do instead", () => {
    while (feeder.size < limits.subscribers) {
      feeder.refuseIfFull();
      add();
    }
    expect(() => feeder.refuseIfFull()).toThrow(TensordError);
    expect(() => feeder.refuseIfFull()).toThrow(`Cannot subscribe: ${limits.subscribers} follow the events already`);
  });
});

describe("one that takes nothing", () => {
  beforeEach(() => {
    feeder[Symbol.dispose]();
    jest.useFakeTimers();
    feeder = new EventFeeder(log);
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  /** Real turns of the event loop: fake timers leave `setImmediate` alone. */
  async function turns(): Promise<void> {
    for (let count = 0; count < 10; count++) await nextTurn();
  }

  test("is ended after its time, and not before; nobody else is", async () => {
    const stalled = add({}, 1);
    const awake = add();
    const idle = add({ types: ["tensord.stream."] });
    append(1);
    await turns();
    jest.advanceTimersByTime(limits.subscriberStallMs - 1);
    expect(stalled.isEnded).toBeFalse();
    jest.advanceTimersByTime(limits.subscriberStallMs / 10 + 1);
    expect(stalled.isEnded).toBeTrue();
    expect([awake.isEnded, idle.isEnded, feeder.size]).toEqual([false, false, 2]);
  });

  test("begins its time anew whenever it takes something", async () => {
    const slow = add({}, 1);
    append(20);
    for (let count = 1; count <= 20; count++) {
      await turns();
      expect(slow.got.length).toBe(count);
      jest.advanceTimersByTime(limits.subscriberStallMs - 1);
      expect(slow.isEnded).toBeFalse();
      slow.room = 1;
      feeder.resume(slow);
    }
    expect(slow.sequences).toEqual(range(20));
  });

  test("is left alone for ever while there is nothing for it to take", async () => {
    const idle = add({}, 1);
    await turns();
    jest.advanceTimersByTime(10 * limits.subscriberStallMs);
    expect(idle.isEnded).toBeFalse();
  });
});
