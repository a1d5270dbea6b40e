/** The kept events between two servers: what was saved comes back whole, anything else not at all, and only once. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { saveEvents, takeEvents } from "../../src/memory/events/event-file.ts";
import type { EventHistory } from "../../src/memory/events/event-log.ts";

const start = 1_795_000_000_000_000;

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tensord-test-"));
  path = join(folder, "events");
});

afterEach(() => rmSync(folder, { recursive: true }));

/** Events as a server keeps them: the text is one line of JSON, whatever a client wrote into names and labels. */
const history = fc
  .record({
    first: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER - 100 }),
    events: fc.array(
      fc.record({
        model: fc.option(fc.string({ minLength: 1, unit: "grapheme-ascii" }).map((name) => name.replaceAll("\t", "-"))),
        session: fc.option(
          fc.string({ minLength: 1, unit: "grapheme-ascii" }).map((name) => name.replaceAll("\t", "-")),
        ),
        label: fc.string({ unit: "binary" }),
      }),
      { maxLength: 20 },
    ),
  })
  .map(
    ({ first, events }): EventHistory => ({
      next: first + events.length,
      events: events.map(({ model, session, label }, index) => ({
        sequence: first + index,
        type: "tensord.region.changed",
        model,
        session,
        text: JSON.stringify({ id: String(first + index), data: { label: label.toWellFormed() } }),
      })),
    }),
  );

function make(count: number): EventHistory {
  const events = Array.from({ length: count }, (_, index) => ({
    sequence: start + index,
    type: "tensord.region.sealed",
    model: "default",
    session: null,
    text: JSON.stringify({ id: String(start + index) }),
  }));
  return { next: start + count, events };
}

function take(text: string | Uint8Array): EventHistory | undefined {
  writeFileSync(path, text);
  const taken = takeEvents(path);
  expect(existsSync(path)).toBeFalse();
  return taken;
}

describe("the event file", () => {
  test("gives back what was saved, once", () => {
    fc.assert(
      fc.property(history, (saved) => {
        saveEvents(path, saved);
        expect(statSync(path).mode & 0o777).toBe(0o600);
        expect(takeEvents(path)).toEqual(saved);
        expect(readdirSync(folder)).toEqual([]);
        expect(takeEvents(path)).toBeUndefined();
      }),
    );
  });

  test("is nothing when it was torn off anywhere; of its first line alone, a ring without events", () => {
    saveEvents(path, make(3));
    const bytes = readFileSync(path);
    for (let length = 0; length < bytes.length; length++) {
      const torn = bytes.subarray(0, length);
      const isFirstLine = torn.toString() === `${start + 3}\n`;
      expect([length, take(torn)]).toEqual([length, isFirstLine ? { next: start + 3, events: [] } : undefined]);
    }
    expect(take(bytes)).toEqual(make(3));
  });

  test("is nothing when it is something else, and gone all the same", () => {
    const line = (sequence: number) => `${sequence}\ttensord.region.sealed\tdefault\t{}`;
    for (const lines of [
      [],
      [""],
      ["hello"],
      ["0"],
      ["-1"],
      ["1.5"],
      ["NaN"],
      ["Infinity"],
      ["1e400"],
      ["9007199254740992"],
      [start + 2, line(start), line(start + 2)],
      [start + 2, line(start + 1), line(start)],
      [start + 1, line(start + 1)],
      [start + 3, line(start), line(start + 1)],
      [start + 2, line(start), "", line(start + 1)],
      [start + 1, line(start), ""],
      [start + 1, `${start}\ttensord.region.sealed`],
      ['{"next":1,"events":[]}'],
    ]) {
      const text = lines.map((row) => `${row}\n`).join("");
      if (take(text) !== undefined) throw new Error(`${JSON.stringify(text)} was taken`);
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => isHarmless(take(bytes))));
  });

  /** Random bytes may spell a number: then it is a ring without events. */
  function isHarmless(taken: EventHistory | undefined): boolean {
    return taken === undefined || (Number.isSafeInteger(taken.next) && taken.next > 0 && taken.events.length === 0);
  }

  test("is not touched by a save that cannot be ended, which leaves nothing either", () => {
    saveEvents(path, make(1));
    mkdirSync(`${path}.new`);
    expect(() => saveEvents(path, make(2))).toThrow();
    rmSync(`${path}.new`, { recursive: true, force: true });
    expect(takeEvents(path)).toEqual(make(1));
    expect(() => saveEvents(join(folder, "nowhere", "events"), make(1))).toThrow("ENOENT");
    expect(readdirSync(folder)).toEqual([]);
  });
});
