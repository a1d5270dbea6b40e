/** The ring of kept events, held against a plain list after random appends. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EventLog, type KeptEvent } from "../../src/memory/events/event-log.ts";
import { limits } from "../../src/memory/limits.ts";

const start = 1_795_000_000_000_000;

/** What the ring must keep: the newest events, within both bounds, but always the last one. */
function toKept(all: readonly KeptEvent[]): KeptEvent[] {
  const kept = all.slice(-limits.keptEvents);
  let byteSize = kept.reduce((sum, { text }) => sum + text.length, 0);
  while (byteSize > limits.keptEventBytes && kept.length > 1) byteSize -= kept.shift()?.text.length ?? 0;
  return kept;
}

function expectModel(log: EventLog, all: readonly KeptEvent[], next: number): void {
  const kept = toKept(all);
  expect(log.size).toBe(kept.length);
  expect(log.byteSize).toBe(kept.reduce((sum, { text }) => sum + text.length, 0));
  expect(log.last).toBe(next - 1);
  expect(log.floor).toBe(next - 1 - kept.length);
  const history = log.history();
  expect(history.next).toBe(next);
  expect(Bun.deepEquals(history.events, kept)).toBeTrue();
  expect(() => log.at(log.floor)).toThrow(RangeError);
  expect(() => log.at(log.last + 1)).toThrow(RangeError);
}

/** Many events of one size, as texts that are cheap to make. */
const burst = fc
  .record({
    count: fc.constantFrom(0, 1, 7, 600, limits.keptEvents - 1, limits.keptEvents, limits.keptEvents + 1),
    length: fc.constantFrom(0, 1, 500, 2000, 200_000, limits.keptEventBytes, limits.keptEventBytes + 1),
  })
  .map(({ count, length }) => ({ count: Math.min(count, mostOf(length)), length }));

/** Each is kept as bytes of its own. */
function mostOf(length: number): number {
  if (length > 200_000) return 3;
  return length > 2000 ? 200 : limits.keptEvents + 1;
}

describe("the event log", () => {
  test("keeps the newest events within its bounds, as a plain list would, over restarts too", () => {
    fc.assert(
      fc.property(fc.array(fc.record({ burst, restarts: fc.boolean() }), { minLength: 1, maxLength: 6 }), (steps) => {
        let log = new EventLog({ next: start, events: [] }, () => true);
        let all: KeptEvent[] = [];
        let next = start;
        for (const { burst, restarts } of steps) {
          const text = "x".repeat(burst.length);
          for (let index = 0; index < burst.count; index++) {
            log.append("tensord.region.changed", { model: "default", session: null }, () => text);
            all.push({ sequence: next, type: "tensord.region.changed", model: "default", session: null, text });
            next += 1;
          }
          all = toKept(all);
          expectModel(log, all, next);
          if (restarts) log = new EventLog(log.history(), () => true);
        }
        expectModel(log, all, next);
      }),
      { numRuns: 40 },
    );
  });

  test("has an event written by its first reader, for those who read it soon, and the same for who reads it late", () => {
    const log = new EventLog({ next: start, events: [] }, () => true);
    const written: number[] = [];
    const padding = "x".repeat(1024);
    const write = (packed: string, type: string, sequence: number) => {
      written.push(sequence);
      return `${packed} ${type} ${sequence} ${padding}`;
    };
    const topic = { model: null, session: null };
    for (let index = 0; index < limits.keptEvents; index++) {
      log.append("tensord.region.allocated", topic, () => ({ byteSize: 100, packed: `é${index}`, write }));
    }
    expect({ written, byteSize: log.byteSize }).toEqual({ written: [], byteSize: 100 * limits.keptEvents });
    const text = `é1 tensord.region.allocated ${start + 1} ${padding}`;
    expect([log.at(start + 1).text, log.at(start + 1).text]).toEqual([text, text]);
    expect(written).toEqual([start + 1]);
    // As many as no longer lie written then: what was written first is so once more, of what was kept.
    const many = Math.ceil(limits.readEventBytes / 1024) + 1;
    for (let index = 2; index < many + 2; index++) log.at(start + index);
    log.at(start + many + 1);
    expect(written.length).toBe(many + 1);
    expect(log.at(start + 1).text).toBe(text);
    expect(written.slice(-1)).toEqual([start + 1]);
    expect(log.byteSize).toBe(100 * limits.keptEvents);
    // What goes out of the ring takes with it what was counted for it, and is read no more.
    log.append("tensord.region.allocated", topic, () => "x");
    log.append("tensord.region.allocated", topic, () => "x");
    expect(log.byteSize).toBe(100 * (limits.keptEvents - 2) + 2);
    expect(() => log.at(start + 1)).toThrow(RangeError);
    expect(() => log.headAt(start + 1)).toThrow(RangeError);
    expect(log.history().events.at(0)?.text).toBe(`é2 tensord.region.allocated ${start + 2} ${padding}`);
  });

  test("keeps what events are about as long as them", () => {
    const log = new EventLog({ next: start, events: [] }, () => true);
    const toTopic = (index: number) => ({
      model: index % 2 === 0 ? null : `model ${index % 3}`,
      session: index % 5 === 0 ? `session ${index}` : null,
      ...(index % 5 === 0 && { createdBy: `token ${index % 7}` }),
    });
    const count = 2 * limits.keptEvents + 3;
    for (let index = 0; index < count; index++) log.append(`type ${index % 4}`, toTopic(index), () => "");
    for (let index = count - limits.keptEvents; index < count; index++) {
      expect(log.headAt(start + index)).toStrictEqual({ type: `type ${index % 4}`, ...toTopic(index) });
    }
  });

  test("tells its listeners after each event, until they stop listening", () => {
    const log = new EventLog({ next: start, events: [] }, () => true);
    const heard: number[] = [];
    const stop = log.listen(() => heard.push(log.last));
    const append = () =>
      log.append("tensord.model.changed", { model: null, session: null }, (sequence) => `text of ${sequence}`);
    append();
    append();
    stop();
    append();
    expect(heard).toEqual([start, start + 1]);
    expect(log.at(start + 1)).toEqual({
      sequence: start + 1,
      type: "tensord.model.changed",
      model: null,
      session: null,
      text: `text of ${start + 1}`,
    });
  });

  test("reserves numbers in blocks before it uses them, and tries again at once when it could not", () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 40 }), fc.integer({ min: 0, max: 3 }), (answers, blocks) => {
        const asked: number[] = [];
        let reserved = start;
        let failed = 0;
        const log = new EventLog({ next: start, events: [] }, (end) => {
          asked.push(end);
          if (answers.shift() === false) {
            failed += 1;
            return false;
          }
          expect(end).toBe(log.last + 1 + limits.sequenceBlock);
          reserved = end;
          return true;
        });
        for (let count = blocks * limits.sequenceBlock + 50; count > 0; count--) {
          const before = failed;
          log.append("tensord.region.changed", { model: "default", session: null }, () => "");
          // Each number lies in a block that was written down, or its own try to write one down failed.
          expect(log.last < reserved || failed === before + 1).toBeTrue();
        }
        // Not one try more than blocks and failures.
        expect(asked.length).toBe(failed + Math.ceil((log.last + 1 - start - failed) / limits.sequenceBlock));
      }),
      { numRuns: 20 },
    );
  });

  test("uses no number when an event cannot be written", () => {
    const log = new EventLog({ next: start, events: [] }, () => true);
    expect(() =>
      log.append("tensord.region.changed", { model: "default", session: null }, () => {
        throw new Error("cannot");
      }),
    ).toThrow("cannot");
    expect([log.size, log.last]).toEqual([0, start - 1]);
    log.append("tensord.region.changed", { model: "default", session: null }, (sequence) => String(sequence));
    expect(log.at(start).text).toBe(String(start));
  });
});
