import { afterEach, describe, expect, test } from "bun:test";
import { Agenda } from "../../src/memory/state/agenda.ts";

const dayMs = 24 * 3600 * 1000;

const agendas: Agenda<string>[] = [];

afterEach(() => {
  for (const agenda of agendas.splice(0)) agenda[Symbol.dispose]();
});

/** An agenda, and what it called back for, each with the time. */
function create(slice = 100) {
  const due: { readonly item: string; readonly at: number }[] = [];
  const { promise: untilNext, resolve } = Promise.withResolvers<void>();
  let wake = resolve;
  let next = untilNext;
  const agenda = new Agenda<string>(slice, (item) => {
    due.push({ item, at: Date.now() });
    wake();
  });
  agendas.push(agenda);
  const untilCount = async (count: number) => {
    while (due.length < count) {
      await next;
      ({ promise: next, resolve: wake } = Promise.withResolvers<void>());
    }
    return due.map(({ item }) => item);
  };
  return { agenda, due, untilCount };
}

/** Resolves when everything that was due before has been called back for. */
async function untilQuiet(): Promise<void> {
  const { agenda, untilCount } = create();
  agenda.schedule("last", Date.now() + 20);
  await untilCount(1);
}

describe("Agenda", () => {
  test("calls back in the order of time, and never too early", async () => {
    const { agenda, due, untilCount } = create();
    const now = Date.now();
    const times: Readonly<Record<string, number>> = { c: now + 30, a: now + 5, b: now + 15, past: now - dayMs };
    for (const [item, at] of Object.entries(times)) agenda.schedule(item, at);
    expect(agenda.size).toBe(4);
    expect(await untilCount(4)).toEqual(["past", "a", "b", "c"]);
    for (const { item, at } of due) expect(at).toBeGreaterThanOrEqual(times[item] ?? Number.NaN);
    expect(agenda.size).toBe(0);
  });

  test("moves an item that is scheduled again, to an earlier and to a later time, and calls back once", async () => {
    const { agenda, untilCount } = create();
    const now = Date.now();
    agenda.schedule("earlier", now + dayMs);
    agenda.schedule("earlier", now + 5);
    agenda.schedule("later", now + 5);
    agenda.schedule("later", now + 15);
    agenda.schedule("later", now + dayMs);
    expect(await untilCount(1)).toEqual(["earlier"]);
    await untilQuiet();
    expect(await untilCount(1)).toEqual(["earlier"]);
    expect(agenda.size).toBe(1);
  });

  test("forgets an item that is cancelled", async () => {
    const { agenda, due } = create();
    agenda.schedule("a", Date.now() + 5);
    agenda.cancel("a");
    agenda.cancel("never there");
    expect(agenda.size).toBe(0);
    await untilQuiet();
    expect(due).toEqual([]);
  });

  test("takes an item again after it was called back for, also from within the call", async () => {
    const items: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const agenda = new Agenda<string>(100, (item) => {
      items.push(item);
      if (items.length === 3) resolve();
      else agenda.schedule(item, Date.now() + 2);
    });
    agendas.push(agenda);
    agenda.schedule("again", Date.now());
    await promise;
    expect(items).toEqual(["again", "again", "again"]);
  });

  test("leaves the event loop a turn after each slice", async () => {
    const { agenda, due, untilCount } = create(10);
    const at = Date.now() - 1;
    for (let index = 0; index < 35; index++) agenda.schedule(String(index), at);
    const turns: number[] = [];
    const count = () => {
      turns.push(due.length);
      if (due.length < 35) setImmediate(count);
    };
    setImmediate(count);
    await untilCount(35);
    expect(new Set(due.map(({ item }) => item)).size).toBe(35);
    expect(turns.filter((done) => done > 0 && done < 35).length).toBeGreaterThan(0);
    expect(turns.every((done) => done % 10 === 0 || done === 35)).toBeTrue();
  });

  test("is not disturbed by a time that is further off than a timer can be", async () => {
    const { agenda, untilCount } = create();
    agenda.schedule("in ten years", Date.now() + 3650 * dayMs);
    agenda.schedule("soon", Date.now() + 5);
    expect(await untilCount(1)).toEqual(["soon"]);
    await untilQuiet();
    expect(agenda.size).toBe(1);
  });

  test("keeps one entry an item, however often it is moved", async () => {
    const { agenda, untilCount } = create();
    for (let round = 0; round < 2000; round++) agenda.schedule("a", Date.now() + dayMs - round);
    agenda.schedule("a", Date.now());
    expect(await untilCount(1)).toEqual(["a"]);
    await untilQuiet();
    expect(agenda.size).toBe(0);
  });

  test("is silent once it is disposed of", async () => {
    const { agenda, due } = create();
    agenda.schedule("a", Date.now() + 5);
    agenda[Symbol.dispose]();
    agenda.schedule("b", Date.now() + 5);
    await untilQuiet();
    expect(due).toEqual([]);
  });
});
