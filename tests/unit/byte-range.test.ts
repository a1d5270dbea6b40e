import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { parseContentRange, parseRanges, toSlice } from "../../src/routes/byte-range.ts";

const size = 1000;
const anySize = fc.oneof(fc.nat({ max: 20 }), fc.maxSafeNat());
const anyOffset = fc.oneof(fc.nat({ max: 25 }), fc.maxSafeNat());

/** RFC 9110, section 14.1.2, in other words: which of the offsets of `of` bytes `first-last` asks for. */
function offsetsOf(first: number | undefined, last: number | undefined, of: number): number[] {
  const all = Array.from({ length: of }, (_, offset) => offset);
  if (first !== undefined) return all.filter((offset) => offset >= first && (last === undefined || offset <= last));
  return last === undefined || last === 0 ? [] : all.slice(-last);
}

function failureOf(parse: () => unknown): TensordError {
  try {
    parse();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("parseRanges", () => {
  test("asks for the bytes that a plain model of the RFC names, and refuses where it names none", () => {
    const anyBound = fc.option(anyOffset, { nil: undefined });
    fc.assert(
      fc.property(anyBound, anyBound, fc.nat({ max: 20 }), (first, last, of) => {
        const offsets = offsetsOf(first, last, of);
        const parse = () => parseRanges(`bytes=${first ?? ""}-${last ?? ""}`, of);
        if (offsets.length > 0) expect(parse()).toEqual([{ first: offsets[0] ?? -1, last: offsets.at(-1) ?? -1 }]);
        else expect(failureOf(parse).code).toBe("range-not-satisfiable");
      }),
      { numRuns: 2000 },
    );
  });

  for (const [header, range] of [
    ["bytes=0-0", { first: 0, last: 0 }],
    ["bytes=0-", { first: 0, last: 999 }],
    ["bytes=999-", { first: 999, last: 999 }],
    ["bytes=10-19", { first: 10, last: 19 }],
    ["bytes=10-5000", { first: 10, last: 999 }],
    ["bytes=0-9223372036854775807", { first: 0, last: 999 }],
    [`bytes=0-${"9".repeat(400)}`, { first: 0, last: 999 }],
    ["bytes=-1", { first: 999, last: 999 }],
    ["bytes=-1000", { first: 0, last: 999 }],
    ["bytes=-18446744073709551615", { first: 0, last: 999 }],
    ["BYTES=0-1", { first: 0, last: 1 }],
    ["bytes = 0 - 1", { first: 0, last: 1 }],
    ["bytes=00000000000000000000001-2", { first: 1, last: 2 }],
  ] as const) {
    test(`${header.slice(0, 40)} is a range`, () => {
      expect(parseRanges(header, size)).toEqual([range]);
    });
  }

  for (const [header, ranges] of [
    ["bytes=0-1,3-4", ["0-1", "3-4"]],
    ["bytes=900-,0-0", ["900-999", "0-0"]],
    ["bytes=0-1,", ["0-1"]],
    ["bytes= , 0-1 ,\t, 5 - 6", ["0-1", "5-6"]],
    ["bytes=0-9,5-14", ["0-14"]],
    ["bytes=5-14,0-9,100-,20-20", ["0-14", "100-999", "20-20"]],
    ["bytes=0-1,2-3", ["0-3"]],
    ["bytes=0-9,2-3", ["0-9"]],
    ["bytes=-1,0-", ["0-999"]],
    ["bytes=5000-,1-2,-0", ["1-2"]],
    [`bytes=${Array.from({ length: 64 }, (_, index) => `${index}-${index}`).join()}`, ["0-63"]],
  ] as const) {
    test(`${header.slice(0, 40)} is ${ranges.join(" and ")}`, () => {
      expect(parseRanges(header, size)?.map(({ first, last }) => `${first}-${last}`)).toEqual([...ranges]);
    });
  }

  test("several ask for the bytes that each of them asks for, once, in parts that do not touch", () => {
    const anyRanges = fc.array(fc.tuple(fc.nat({ max: 20 }), fc.nat({ max: 20 })), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(anyRanges, fc.integer({ min: 21, max: 30 }), (pairs, of) => {
        const specs = pairs.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
        const ranges = parseRanges(`bytes=${specs.map(([a, b]) => `${a}-${b}`).join(", ")}`, of) ?? [];
        const wanted = new Set(specs.flatMap(([a, b]) => offsetsOf(a, b, of)));
        const got = ranges.flatMap(({ first, last }) => offsetsOf(first, last, of));
        expect(got.toSorted((a, b) => a - b)).toEqual([...wanted].toSorted((a, b) => a - b));
        for (const { last } of ranges) expect(wanted.has(last + 1)).toBeFalse();
      }),
      { numRuns: 1000 },
    );
  });

  test("a long header takes no longer than it is long", () => {
    for (const header of [
      `bytes=0${" ".repeat(200_000)}1`,
      `bytes=${" ".repeat(200_000)}x`,
      `bytes=${",".repeat(200_000)}`,
    ]) {
      expect(failureOf(() => parseRanges(header, size)).code).toBe("range-not-satisfiable");
    }
  });

  for (const header of ["items=0-1", "seconds=x", "pages=", "x-y=0-1"]) {
    test(`${header} is of a unit that is not ours, and asks for all of it`, () => {
      expect(parseRanges(header, size)).toBeUndefined();
    });
  }

  test("no header asks for all of it", () => {
    expect(parseRanges(undefined, size)).toBeUndefined();
  });

  for (const header of [
    "",
    " ",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes= - ",
    "bytes=-0",
    "bytes=5-4",
    "bytes=1000-",
    "bytes=1000-1000",
    "bytes=9223372036854775807-",
    `bytes=${"9".repeat(400)}-`,
    "bytes=,",
    "bytes= , ,",
    "bytes=0-1,x",
    "bytes=0-1,5-4",
    "bytes=1000-,2000-3000,-0",
    "bytes=0-1=",
    `bytes=${"0-1,".repeat(65)}`,
    "bytes=0-1-2",
    "bytes=--1",
    "bytes=+1-2",
    "bytes=1-+2",
    "bytes=0x0-0x1",
    "bytes=0.0-1.0",
    "bytes=1e1-2e1",
    "bytes=a-b",
    "bytes=0 1",
    "bytes=1 0-1 1",
    "bytes=٠-١",
    "bytes:0-1",
    "0-1",
    "=0-1",
    "bytes=0-1\u0000",
  ]) {
    test(`${JSON.stringify(header).slice(0, 40)} is refused`, () => {
      const { code, facts, message } = failureOf(() => parseRanges(header, size));
      expect({ code, complete_length: facts.complete_length }).toEqual({
        code: "range-not-satisfiable",
        complete_length: size,
      });
      expect(message).toMatch(/^Cannot use Range ".*": [a-z]/s);
      expect(message.length).toBeLessThan(250);
    });
  }

  test("nothing of no bytes can be asked for", () => {
    for (const header of ["bytes=0-", "bytes=0-0", "bytes=-1"]) {
      expect(failureOf(() => parseRanges(header, 0)).code).toBe("range-not-satisfiable");
    }
    expect(parseRanges(undefined, 0)).toBeUndefined();
  });

  test("any text is a part of the data, all of it, or refused, and nothing else", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `bytes=${text}`),
        ),
        anySize,
        (header, of) => {
          try {
            const ranges = parseRanges(header, of);
            if (ranges === undefined) return expect(header).not.toMatch(/^\s*bytes\s*=/i);
            expect(ranges.length).toBeGreaterThan(0);
            for (const { first, last } of ranges) {
              expect([first >= 0, first <= last, last < of]).toEqual([true, true, true]);
            }
          } catch (error) {
            expect((error as TensordError).code).toBe("range-not-satisfiable");
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe("parseContentRange", () => {
  test("takes every part of the data, with the total or without", () => {
    fc.assert(
      fc.property(anyOffset, anyOffset, anySize, fc.boolean(), (first, last, of, withTotal) => {
        const header = `bytes ${first}-${last}/${withTotal ? of : "*"}`;
        if (first <= last && last < of) expect(parseContentRange(header, of)).toEqual({ first, last });
        else expect(failureOf(() => parseContentRange(header, of)).code).toBe("range-not-satisfiable");
      }),
      { numRuns: 2000 },
    );
  });

  test("no header is all of it", () => {
    expect(parseContentRange(undefined, size)).toBeUndefined();
  });

  for (const header of [
    "",
    "bytes",
    "bytes 0-1",
    "bytes 0-1/",
    "bytes 0-1/999",
    "bytes 0-1/1001",
    "bytes 0-1000/*",
    "bytes 0-9007199254740993/*",
    "bytes 18446744073709551616-18446744073709551617/*",
    "bytes 5-4/*",
    "bytes */1000",
    "bytes -5/*",
    "bytes 0-/*",
    "bytes=0-1/*",
    "items 0-1/*",
    "bytes 0-1,2-3/*",
    "bytes 0-1/**",
    "bytes +0-1/*",
    "bytes 0x0-0x1/*",
    "bytes 0-1/1e3",
  ]) {
    test(`${JSON.stringify(header)} is refused`, () => {
      const { code, facts, message } = failureOf(() => parseContentRange(header, size));
      expect({ code, complete_length: facts.complete_length }).toEqual({
        code: "range-not-satisfiable",
        complete_length: size,
      });
      expect(message).toStartWith("Cannot use Content-Range ");
    });
  }
});

describe("toSlice", () => {
  test("lies within the data, where the range says, and is as long as the range", () => {
    const whole = { byteOffset: 4096, byteSize: size };
    expect(toSlice(whole, undefined)).toBe(whole);
    expect(toSlice(whole, { first: 0, last: 0 })).toEqual({ byteOffset: 4096, byteSize: 1 });
    expect(toSlice(whole, { first: 990, last: 999 })).toEqual({ byteOffset: 5086, byteSize: 10 });
  });
});
