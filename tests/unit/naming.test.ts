import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  createToken,
  instancePattern,
  namePattern,
  parseFileName,
  parseRegionId,
  quote,
  toFileName,
  toJsonText,
  tokenPattern,
  toPrintable,
  toPrintableLine,
  toRegionId,
} from "../../src/memory/naming.ts";

const instance = fc.stringMatching(/^[a-z0-9-]{1,32}$/);

describe("namePattern", () => {
  for (const name of ["a", "A.b_c-1", "org--name", "a..b", "_", "-", "0", "a.", "__proto__", "n".repeat(128)]) {
    test(`allows ${JSON.stringify(name.slice(0, 20))}`, () => {
      expect(name).toMatch(namePattern);
    });
  }

  for (const name of [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "/a",
    "a\\b",
    "a b",
    "a\n",
    "\na",
    "a\0",
    "a%2fb",
    "ä",
    "а",
    "😀",
    "a:b",
    "a*",
    "n".repeat(129),
  ]) {
    test(`refuses ${JSON.stringify(name.slice(0, 20))}`, () => {
      expect(name).not.toMatch(namePattern);
    });
  }

  test("allows nothing that means something to a path, a URL or a shell", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 140 }), (name) => {
        if (!namePattern.test(name)) return;
        expect(encodeURIComponent(name)).toBe(name);
        expect(new URL(`http://h/a/${name}/b`).pathname).toBe(`/a/${name}/b`);
      }),
    );
  });
});

describe("instancePattern", () => {
  test("allows what fits into a file name without escapes, and no dot, which ends it there", () => {
    for (const name of ["default", "a", "0", "-", "a-1", "i".repeat(32)]) expect(name).toMatch(instancePattern);
    for (const name of ["", "A", "a.b", "a_b", "a/b", "..", "a\n", "i".repeat(33)]) {
      expect(name).not.toMatch(instancePattern);
    }
  });
});

describe("createToken", () => {
  test("makes tokens of 26 characters that never repeat, with every character in every place", () => {
    const tokens = Array.from({ length: 5000 }, createToken);
    expect(new Set(tokens).size).toBe(tokens.length);
    expect(tokens.filter((token) => !tokenPattern.test(token))).toEqual([]);
    for (let place = 0; place < 26; place++) {
      expect(new Set(tokens.map((token) => token[place])).size).toBe(32);
    }
  });
});

describe("a token", () => {
  test("comes back from its region id and from its file's name", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z2-7]{26}$/), instance, (token, name) => {
        expect(parseRegionId(toRegionId(token))).toBe(token);
        expect(parseFileName(name, toFileName(name, token))).toBe(token);
      }),
    );
  });

  test("is not read from another instance's file, whatever the two are called", () => {
    fc.assert(
      fc.property(instance, instance, (ours, theirs) => {
        fc.pre(ours !== theirs);
        expect(parseFileName(ours, toFileName(theirs, createToken()))).toBeUndefined();
      }),
    );
  });

  const token = "abcdefghijklmnopqrstuvwx27";

  for (const id of [
    "",
    "reg_",
    token,
    `reg_${token}a`,
    `reg_${token.slice(1)}`,
    `reg_${token.toUpperCase()}`,
    `REG_${token}`,
    ` reg_${token}`,
    `reg_${token}\n`,
    `reg_${token.slice(1)}1`,
    `reg_../${token.slice(3)}`,
    `reg_reg_${token}`,
  ]) {
    test(`is not read from the id ${JSON.stringify(id)}`, () => {
      expect(parseRegionId(id)).toBeUndefined();
    });
  }

  for (const fileName of [
    "",
    "tensord.a",
    "tensord.a.",
    `tensord.a${token}`,
    `tensord.a.${token}.tmp`,
    `tensord.a.${token.slice(1)}`,
    `xtensord.a.${token}`,
    `tensord.a.b.${token}`,
    `tensord.a./${token.slice(1)}`,
    `tensord.a.${token}\n`,
    "lock",
  ]) {
    test(`is not read from the file name ${JSON.stringify(fileName)}`, () => {
      expect(parseFileName("a", fileName)).toBeUndefined();
    });
  }
});

test("text in JSON is what JSON.stringify makes of it, each character alone and among others", () => {
  for (let code = 0; code < 0x10000; code++) {
    const character = String.fromCharCode(code);
    const [alone, among] = [JSON.stringify(character), JSON.stringify(`a${character}z`)];
    if (toJsonText(character) !== alone || toJsonText(`a${character}z`) !== among) expect(code).toBe(-1);
  }
  for (const text of ["", "weights", "a\u{1f600}b", "line\n"]) expect(toJsonText(text)).toBe(JSON.stringify(text));
});

describe("text for a terminal", () => {
  const hostile = "\x1b[2J\x07\x9b31m\x7f\u202eevil\u2066\u2028\ud800\t\r";

  test("has what a terminal would obey as escapes, and the rest as it was", () => {
    const shown = toPrintable(`größer 😀 ${hostile}\nnext`);
    expect(shown).toBe(
      "größer 😀 \\u001b[2J\\u0007\\u009b31m\\u007f\\u202eevil\\u2066\\u2028\\ud800\\u0009\\u000d\nnext",
    );
    expect(toPrintableLine("a\nb")).toBe("a\\u000ab");
  });

  test("is JSON with the same value, where it was JSON", () => {
    const value = { [hostile]: [hostile, "größer"] };
    expect(JSON.parse(toPrintable(JSON.stringify(value, null, 2)))).toEqual(value);
  });

  test("is quoted so in a sentence", () => {
    expect(quote(`a${hostile}`)).not.toMatch(/[\p{Cc}\p{Cs}\p{Bidi_Control}]/u);
  });
});
