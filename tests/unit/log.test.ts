/** The lines of regions' events, which are written without the library, are those that it would write. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { StoreEvent } from "../../src/memory/state/store-event.ts";
import { createLines, logEvent } from "../../src/server/log.ts";

/** All that a line tells of a region. */
interface Told {
  readonly model: string;
  readonly name: string | null;
  readonly formerName: string | null;
  readonly state: string;
  readonly reason: string | null;
  readonly byteSize: number;
}

const token = "a".repeat(26);
/** In no order but that of the line, which has its own. */
const withoutTime = (line: string) => line.replace(/"time":"[^"]*"/, '"time":"then"');

function toLines(level: string, instance: string) {
  const written: string[] = [];
  return { written, lines: createLines(level, instance, (line) => written.push(line)) };
}

function toEvent(type: string, told: Told, more: object): StoreEvent {
  return { type, region: { token, ...told }, ...more } as unknown as StoreEvent;
}

const text = fc.oneof(fc.stringMatching(/^[A-Za-z0-9._-]{1,20}$/), fc.string({ unit: "binary" }));
const regions = fc.record<Told>({
  model: text,
  name: fc.option(text),
  formerName: fc.option(text),
  state: fc.constantFrom("open", "sealed", "draining", "deleted"),
  reason: fc.option(fc.constantFrom("request", "ttl")),
  byteSize: fc.nat(),
});
const mores = fc.oneof(fc.constant({}), fc.record({ actor: fc.oneof(fc.constant(undefined), text) }));

test("the line of a region's event is the one that the library writes of the same facts", () => {
  fc.assert(
    fc.property(regions, mores, text, (told, more, instance) => {
      const { written, lines } = toLines("info", instance);
      const { model, name, formerName, state, reason, byteSize } = told;
      const type = "actor" in more ? "tensord.region.draining" : "tensord.region.allocated";
      logEvent(lines, toEvent(type, told, more));
      const facts = { model, name: name ?? formerName, state, reason, byte_size: byteSize };
      lines.log.info({ event: type, region: `reg_${token}`, ...facts, ...more }, type);
      const [own = "", theirs = ""] = written.map(withoutTime);
      expect(written).toHaveLength(2);
      expect(own.endsWith("}\n")).toBe(true);
      expect(own).toBe(theirs);
      expect(JSON.parse(written[0] ?? "").time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    }),
  );
});

test("what is lost or relinked is a warning, with its cause", () => {
  const { written, lines } = toLines("info", "own");
  const told = { model: "m", name: "w", formerName: null, state: "open", reason: null, byteSize: 1 };
  logEvent(lines, toEvent("tensord.region.lost", told, { cause: "removed" }));
  expect(JSON.parse(written[0] ?? "")).toMatchObject({
    level: 40,
    cause: "removed",
    name: "w",
    region: `reg_${token}`,
  });
});

test("below the level nothing is written of a region", () => {
  const { written, lines } = toLines("warn", "own");
  const told = { model: "m", name: "w", formerName: null, state: "open", reason: null, byteSize: 1 };
  logEvent(lines, toEvent("tensord.region.allocated", told, {}));
  expect(written).toEqual([]);
});
