/** A reader's place: what it is given, held against the list of all events, from wherever it begins. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EventCursor, type EventFilter, type EventGap } from "../../src/memory/events/event-cursor.ts";
import { EventLog, type KeptEvent } from "../../src/memory/events/event-log.ts";
import { limits } from "../../src/memory/limits.ts";

const start = 1_795_000_000_000_000;
const types = ["tensord.region.sealed", "tensord.region.allocated", "tensord.model.changed"] as const;
const models = ["a", "b"] as const;

function createLog(): EventLog {
  return new EventLog({ next: start, events: [] }, () => true);
}

function append(log: EventLog, count: number, pick: (index: number) => readonly [string, string | null]): void {
  for (let index = 0; index < count; index++) {
    const [type, model] = pick(index);
    log.append(type, { model, session: null }, (sequence) => String(sequence));
  }
}

/** Everything that there is for the cursor now. */
function drain(cursor: EventCursor): (KeptEvent | EventGap)[] {
  const found: (KeptEvent | EventGap)[] = [];
  while (cursor.isBehind) {
    const next = cursor.next();
    if (next !== undefined) found.push(next);
  }
  expect(cursor.next()).toBeUndefined();
  return found;
}

/** The filter in other words than the cursor's own. */
function toExpected(events: readonly KeptEvent[], { model, types: prefixes = [] }: EventFilter): KeptEvent[] {
  const pattern = new RegExp(`^(${prefixes.map((prefix) => prefix.replaceAll(".", "\\.")).join("|")})`);
  return events.filter((event) => (model ?? event.model) === event.model && pattern.test(event.type));
}

const anyEvent = fc.record({ type: fc.constantFrom(...types), model: fc.constantFrom(...models) });
const anyFilter = fc.record({
  model: fc.option(fc.constantFrom(...models, "nobody"), { nil: undefined }),
  types: fc.option(fc.subarray(["tensord.region.", "tensord.region.sealed", "tensord.model", "tensord.", "sealed"]), {
    nil: undefined,
  }),
});

describe("a cursor", () => {
  test("gives each event that its filter lets pass once, in order, however reading and telling alternate", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(anyEvent, { maxLength: 8 }), { maxLength: 12 }),
        anyFilter,
        fc.integer({ min: 0, max: 8 }),
        (rounds, filter, skipped) => {
          const log = createLog();
          append(log, 8, (index) => [types[index % 3] ?? "", models[index % 2] ?? ""]);
          const cursor = new EventCursor(log, filter, start - 1 + skipped);
          const got: (KeptEvent | EventGap)[] = [];
          for (const events of rounds) {
            append(log, events.length, (index) => [events[index]?.type ?? "", events[index]?.model ?? ""]);
            if (events.length % 2 === 0) got.push(...drain(cursor));
          }
          got.push(...drain(cursor));
          expect(got).toEqual(toExpected(log.history().events.slice(skipped), filter));
          expect(cursor.position).toBe(log.last);
        },
      ),
    );
  });

  test("without a place to begin gives only what comes after it was made", () => {
    const log = createLog();
    append(log, 3, () => [types[0], "a"]);
    const cursor = new EventCursor(log, {}, undefined);
    expect([cursor.isBehind, cursor.next()]).toEqual([false, undefined]);
    append(log, 1, () => [types[1], "b"]);
    expect(cursor.next()).toMatchObject({ sequence: start + 3, type: types[1] });
  });

  test("tells a gap once, from the numbers alone, and goes on behind it without leaving anything out", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -3, max: 3 }),
        fc.constantFrom("first", "floor", "last", "zero"),
        (offset, from) => {
          const log = createLog();
          append(log, limits.keptEvents + 5, () => [types[0], "a"]);
          const { floor, last } = log;
          const after = Math.max(0, { first: start, floor, last, zero: 0 }[from] + offset);
          const cursor = new EventCursor(log, {}, after);
          const found = drain(cursor);
          const position = after < floor ? floor : Math.min(after, last);
          const gap = { requestedAfter: after, firstAvailable: position + 1 };
          expect(found[0]).toEqual(after === position ? (log.history().events[after - floor] as KeptEvent) : gap);
          expect(found.length).toBe(last - position + (after === position ? 0 : 1));
          expect(found.filter((item) => "firstAvailable" in item).length).toBe(after === position ? 0 : 1);
          expect(cursor.position).toBe(last);
          append(log, 1, () => [types[0], "a"]);
          expect(drain(cursor)).toMatchObject([{ sequence: last + 1 }]);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("that was overtaken by the ring learns of it, whatever its filter", () => {
    const log = createLog();
    const cursor = new EventCursor(log, { model: "nobody" }, undefined);
    append(log, limits.keptEvents + 1, () => [types[0], "a"]);
    expect(cursor.next()).toEqual({ requestedAfter: start - 1, firstAvailable: start + 1 });
    expect(drain(cursor)).toEqual([]);
    expect(cursor.position).toBe(log.last);
  });

  test("looks at a bounded number of events at a time", () => {
    const log = createLog();
    append(log, 2 * limits.eventScan + 1, (index) => [types[0], index === 2 * limits.eventScan ? "b" : "a"]);
    const cursor = new EventCursor(log, { model: "b" }, start - 1);
    const seen = [cursor.next(), cursor.position, cursor.next(), cursor.position, cursor.isBehind, cursor.next()];
    expect(seen).toMatchObject([
      undefined,
      start - 1 + limits.eventScan,
      undefined,
      start - 1 + 2 * limits.eventScan,
      true,
      { sequence: log.last },
    ]);
  });
});
