import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TensordError } from "../../src/memory/error.ts";
import { limits } from "../../src/memory/limits.ts";
import { hashToken, judgeTokensFile, parseTokens, readTokens } from "../../src/server/access/tokens-file.ts";

const token = "0123456789abcdef0123456789abcdef";
const line = { name: "trainer", role: "worker", token };

function failureOf(use: () => unknown): TensordError {
  try {
    use();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

const parse = (...tokens: readonly object[]) => parseTokens(JSON.stringify({ tokens }), "/tokens.json");

describe("the text of a file of tokens", () => {
  test("says of each line who may call as what, and keeps no token", () => {
    const hash = hashToken(token);
    const [entry] = parse({ ...line, models: ["llama"], requests_per_second: 5, uids: [1001] });
    expect(entry).toEqual({
      name: "trainer",
      role: "worker",
      hash,
      models: ["llama"],
      requests_per_second: 5,
      uids: [1001],
    });
    expect(JSON.stringify(entry)).not.toContain(token);
    expect(parse({ name: "a", role: "reader", token_sha256: hash.toString("hex") })[0]?.hash).toEqual(hash);
    expect(parse({ name: "a", role: "reader", uids: [0] })[0]?.hash).toBeUndefined();
  });

  test("may have a name twice, while a token is exchanged for another", () => {
    expect(parse(line, { ...line, token: `${token}2` })).toHaveLength(2);
  });

  for (const [what, lines, want] of [
    ["a short token", [{ ...line, token: "secret-of-mine" }], /tokens\.0\.token: want 32 to 512/],
    ["a token that no header can carry", [{ ...line, token: `${token} x` }], /tokens\.0\.token/],
    ["a line without any", [{ name: "a", role: "admin" }], /nobody can be it, want `token`, `token_sha256` or `uids`/],
    ["a line with both", [{ ...line, token_sha256: "0".repeat(64) }], /want `token` or `token_sha256`/],
    ["a hash of another length", [{ name: "a", role: "admin", token_sha256: "abc" }], /64 hexadecimal digits/],
    ["an unknown role", [{ ...line, role: "root" }], /tokens\.0\.role/],
    ["no name", [{ role: "admin", token }], /tokens\.0\.name/],
    ["a name that no region could have", [{ ...line, name: "a\u001bb" }], /tokens\.0\.name/],
    ["a member that is misspelt", [{ ...line, model: ["llama"] }], /tokens\.0: .*model/],
    [
      "an admin that is held to models",
      [{ ...line, role: "admin", models: ["llama"] }],
      /an admin is held to no models/,
    ],
    ["no models at all", [{ ...line, models: [] }], /tokens\.0\.models/],
    ["a rate of nothing", [{ ...line, requests_per_second: 0 }], /tokens\.0\.requests_per_second/],
    ["a uid that is none", [{ ...line, uids: [-1] }], /tokens\.0\.uids/],
    ["one token for two", [line, { ...line, name: "other" }], /"trainer" and "other" have one and the same token/],
    [
      "one uid for two",
      [
        { name: "a", role: "admin", uids: [7] },
        { name: "b", role: "reader", uids: [7] },
      ],
      /"a" and "b" have uid 7/,
    ],
    ["no line", [], /tokens/],
  ] as const) {
    test(`with ${what} is refused whole, and the refusal has no token in it`, () => {
      const { code, message } = failureOf(() => parse(...lines));
      expect(code).toBe("validation-failed");
      expect(message).toMatch(want);
      expect(message).not.toContain(token);
      expect(message).not.toContain("secret-of-mine");
    });
  }

  test("that is no JSON is refused without a piece of it", () => {
    const { message } = failureOf(() => parseTokens(`{"tokens": [{"token": ${token}`, "/tokens.json"));
    expect(message).toBe("Cannot use the tokens of /tokens.json: it is no JSON");
  });
});

describe("a file of tokens", () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tensord-tokens-"));
    path = join(folder, "tokens.json");
    writeFileSync(path, JSON.stringify({ tokens: [line] }), { mode: 0o600 });
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  // The file's group is the one of this process, as whoever makes a file has it.
  for (const mode of [0o600, 0o400, 0o700, 0o640, 0o440]) {
    test(`of mode ${mode.toString(8)} is read`, () => {
      chmodSync(path, mode);
      expect(readTokens(path)).toHaveLength(1);
    });
  }

  for (const mode of [0o644, 0o604, 0o602, 0o601, 0o444]) {
    test(`of mode ${mode.toString(8)} is refused with the cure`, () => {
      chmodSync(path, mode);
      const { message, facts } = failureOf(() => readTokens(path));
      expect(message).toContain(`its mode is 0${mode.toString(8)}, so that everybody reaches it; want 0600, or 0640`);
      expect(facts.hint).toBe(`chmod 600 ${path}, or of a Kubernetes secret \`defaultMode: 0400\``);
    });
  }

  for (const mode of [0o660, 0o620, 0o650, 0o610]) {
    test(`of mode ${mode.toString(8)} is refused: its group may do more than read it`, () => {
      chmodSync(path, mode);
      const { message, facts } = failureOf(() => readTokens(path));
      expect(message).toContain(`its mode is 0${mode.toString(8)}, so that its group may do more than read it`);
      expect(facts.hint).toBe(`chmod 600 ${path}`);
    });
  }

  test.skipIf(process.geteuid?.() !== 0)("of another user is refused with the cure (needs root)", () => {
    chownSync(path, 12_345, 0);
    const { message, facts } = failureOf(() => readTokens(path));
    expect(message).toContain("it belongs to uid 12345");
    expect(facts.hint).toBe(`chown 0 ${path}`);
  });

  test.skipIf(process.geteuid?.() !== 0)(
    "of a group that the server is not in is refused if that reads it (needs root)",
    () => {
      chownSync(path, 0, 12_345);
      chmodSync(path, 0o440);
      const { message } = failureOf(() => readTokens(path));
      expect(message).toContain("its mode is 0440 and its group 12345, which the server is not in");
      chmodSync(path, 0o400);
      expect(readTokens(path)).toHaveLength(1);
    },
  );

  test("may be a link to one, as orchestrators make them, and is read anew when the folder behind it is swapped", () => {
    // As Kubernetes mounts a secret: the file's name leads to `..data`, and that to the folder of the day.
    const secret = join(folder, "secret");
    mkdirSync(join(secret, "..1"), { recursive: true });
    copyFileSync(path, join(secret, "..1/tokens.json"));
    chmodSync(join(secret, "..1/tokens.json"), 0o440);
    symlinkSync("..1", join(secret, "..data"));
    symlinkSync("..data/tokens.json", join(secret, "tokens.json"));
    expect(readTokens(join(secret, "tokens.json"))).toHaveLength(1);
    mkdirSync(join(secret, "..2"));
    writeFileSync(join(secret, "..2/tokens.json"), JSON.stringify({ tokens: [line, { ...line, token: `${token}2` }] }));
    chmodSync(join(secret, "..2/tokens.json"), 0o440);
    symlinkSync("..2", join(secret, "..data.new"));
    renameSync(join(secret, "..data.new"), join(secret, "..data"));
    expect(readTokens(join(secret, "tokens.json"))).toHaveLength(2);
  });

  test("is judged by each group that the server is in, the supplementary ones too", () => {
    const server = { uid: 1000, gids: [1000, 2000] };
    const judge = (mode: number, uid: number, gid: number) =>
      judgeTokensFile({ mode: 0o100000 | mode, uid, gid }, "/tokens.json", server)?.state;
    // What a pod with `fsGroup: 2000` finds.
    expect(judge(0o440, 0, 2000)).toBeUndefined();
    expect(judge(0o640, 1000, 1000)).toBeUndefined();
    expect(judge(0o440, 0, 3000)).toStartWith("its mode is 0440 and its group 3000, which the server is not in");
    expect(judge(0o400, 0, 3000)).toBeUndefined();
    expect(judge(0o460, 0, 2000)).toContain("its group may do more than read it");
    expect(judge(0o440, 3000, 2000)).toBe("it belongs to uid 3000");
  });

  test("that is none, or not there, or too long, is refused", () => {
    expect(failureOf(() => readTokens(folder)).message).toContain("it is no file");
    expect(failureOf(() => readTokens(join(folder, "none")))).toMatchObject({
      code: "io-error",
      facts: { errno: "ENOENT" },
    });
    writeFileSync(path, " ".repeat(limits.tokensFileBytes + 1), { mode: 0o600 });
    expect(failureOf(() => readTokens(path)).message).toContain(`want at most ${limits.tokensFileBytes}`);
  });
});
