/** The names of a model's regions: versions stand side by side, and the name alone means one of them. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { NameIndex } from "../../src/memory/state/name-index.ts";

interface Held {
  readonly key: number;
  readonly version: string;
  sealedAt: number | null;
}

const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("add" as const), name: fc.nat(1), version: fc.nat(2) }),
    fc.record({ kind: fc.constant("remove" as const), name: fc.nat(1), version: fc.nat(2) }),
    fc.record({ kind: fc.constant("seal" as const), name: fc.nat(1), version: fc.nat(2) }),
  ),
  { maxLength: 40 },
);

/** The newest sealed, or, where none is sealed, the newest. */
function currentOf(held: readonly Held[]): Held | undefined {
  const sealed = held.filter(({ sealedAt }) => sealedAt !== null);
  const bySeal = sealed.toSorted((a, b) => (b.sealedAt ?? 0) - (a.sealedAt ?? 0));
  return bySeal[0] ?? held.toSorted((a, b) => b.key - a.key)[0];
}

test("it agrees with a list after any sequence of additions, removals and seals", () => {
  fc.assert(
    fc.property(steps, (sequence) => {
      const index = new NameIndex<Held>();
      const names = new Map<string, Held[]>();
      for (const [key, { kind, name: name_, version: version_ }] of sequence.entries()) {
        const [name, version] = [`name-${name_}`, version_ === 0 ? "" : String(version_)];
        const held = names.get(name) ?? [];
        const found = held.find((each) => each.version === version);
        if (kind === "add" && found === undefined) {
          const added = { key: key + 1, version, sealedAt: null };
          index.add(name, added);
          names.set(name, [...held, added]);
        } else if (kind === "remove" && found !== undefined) {
          index.remove(name, found);
          names.set(
            name,
            held.filter((each) => each !== found),
          );
        } else if (kind === "seal" && found !== undefined && found.sealedAt === null) {
          found.sealedAt = key + 1;
          index.refresh(name);
        }
        for (const [each, all] of names) {
          expect(index.find(each)).toBe(currentOf(all) as Held);
          for (const one of all) expect(index.find(each, one.version)).toBe(one);
          expect(new Set(index.all(each))).toEqual(new Set(all));
        }
        expect(index.size).toBe([...names.values()].flat().length);
      }
      expect(index.find("nobody")).toBeUndefined();
      expect(index.get("name-0", "9")).toBeUndefined();
    }),
  );
});
