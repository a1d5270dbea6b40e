/** Who a token or a uid is, as its file changes. */

import { describe, expect, test } from "bun:test";
import { chmodSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { TensordError } from "../../src/memory/error.ts";
import { Authority } from "../../src/server/access/authority.ts";
import { TokensPath, tokenOf } from "../harness/tokens-file.ts";

const trainer = { name: "trainer", role: "worker", token: tokenOf("trainer"), models: ["llama"] };
const jobs = { name: "jobs", role: "reader", uids: [1001] };
const peer = { pid: 4711, uid: 1001, gid: 1001 };

function withAuthority(use: (authority: Authority, file: TokensPath, told: string[]) => void): () => void {
  return function useAuthority() {
    using file = new TokensPath([trainer, jobs]);
    const told: string[] = [];
    using authority = new Authority(file.path, (message) => told.push(message));
    use(authority, file, told);
  };
}

function codeOf(use: () => unknown): string {
  try {
    use();
  } catch (error) {
    if (error instanceof TensordError) return error.code;
    throw error;
  }
  return "";
}

describe("an authority", () => {
  test(
    "knows a caller by its token, and by the uid of its peer",
    withAuthority((authority) => {
      expect(authority.authenticate({ token: trainer.token })).toMatchObject({ name: "trainer", role: "worker" });
      expect(authority.authenticate({ peer })).toMatchObject({ name: "jobs", role: "reader", models: null });
      expect(authority.authenticate({ token: trainer.token, peer }).name).toBe("trainer");
    }),
  );

  test(
    "takes no other token, and no peer makes a wrong one good",
    withAuthority((authority) => {
      for (const token of ["", "x", trainer.token.slice(0, -1), `${trainer.token}x`, tokenOf("nobody")]) {
        expect(codeOf(() => authority.authenticate({ token, peer }))).toBe("unauthorized");
      }
      expect(codeOf(() => authority.authenticate({}))).toBe("unauthorized");
      expect(codeOf(() => authority.authenticate({ peer: { ...peer, uid: 1002 } }))).toBe("unauthorized");
      expect(codeOf(() => authority.authenticate({ peer: { ...peer, uid: 0 } }))).toBe("unauthorized");
    }),
  );

  test(
    "reads a header as RFC 6750 has it, and no other scheme",
    withAuthority((authority) => {
      for (const header of [`Bearer ${trainer.token}`, `bearer   ${trainer.token} `]) {
        expect(authority.authenticateHeader(header).name).toBe("trainer");
      }
      for (const header of [undefined, "", trainer.token, `Basic ${trainer.token}`, "Bearer", `Bearer a b`]) {
        expect(codeOf(() => authority.authenticateHeader(header))).toBe("unauthorized");
      }
    }),
  );

  test(
    "follows the file: a line that is gone or changed counts no longer, and one that stands keeps its caller",
    withAuthority((authority, file, told) => {
      const before = authority.authenticate({ token: trainer.token });
      const job = authority.authenticate({ peer });
      file.write([{ ...jobs, role: "admin" }, trainer]);
      authority.look();
      expect(authority.authenticate({ token: trainer.token })).toBe(before);
      expect(before.revoked.aborted).toBeFalse();
      expect(job.revoked.aborted).toBeTrue();
      expect(authority.authenticate({ peer }).role).toBe("admin");
      file.write([jobs]);
      authority.look();
      expect(before.revoked.aborted).toBeTrue();
      expect(codeOf(() => authority.authenticate({ token: trainer.token }))).toBe("unauthorized");
      expect(told).toHaveLength(2);
    }),
  );

  for (const [what, spoil] of [
    ["a file that is no JSON", ({ path }) => writeFileSync(path, '{"tokens": [')],
    ["a file with a mistake", (file) => file.write([{ ...trainer, role: "root" }])],
    ["a file that others may read", ({ path }) => chmodSync(path, 0o644)],
    ["no file", ({ path }) => rmSync(path)],
    [
      "a link that leads nowhere but to itself",
      ({ path }) => {
        rmSync(path);
        symlinkSync(path, path);
      },
    ],
    [
      "a pipe that nobody writes into",
      ({ path }) => {
        rmSync(path);
        Bun.spawnSync(["mkfifo", "-m", "600", path]);
      },
    ],
    [
      "another file in its place that others may read",
      ({ path }) => {
        writeFileSync(`${path}.new`, '{"tokens": []}', { mode: 0o644 });
        renameSync(`${path}.new`, path);
      },
    ],
  ] as [string, (file: TokensPath) => void][]) {
    test(
      `keeps the tokens of before for ${what}, says so once, and takes the next good one`,
      withAuthority((authority, file, told) => {
        const caller = authority.authenticate({ token: trainer.token });
        spoil(file);
        authority.look();
        authority.look();
        expect(told).toEqual([expect.stringMatching(/^the tokens of before still count: Cannot/)]);
        expect(authority.authenticate({ token: trainer.token })).toBe(caller);
        rmSync(file.path, { force: true });
        file.write([jobs]);
        authority.look();
        expect(caller.revoked.aborted).toBeTrue();
      }),
    );
  }

  test(
    "issues a token for a session, which counts until the session ends, another is issued, or the line is gone",
    withAuthority((authority, file) => {
      const caller = authority.authenticate({ peer });
      const first = authority.issue(caller, "one");
      expect(authority.authenticate({ token: first })).toBe(caller);
      const second = authority.issue(caller, "one");
      expect(second).not.toBe(first);
      expect(codeOf(() => authority.authenticate({ token: first }))).toBe("unauthorized");
      expect(authority.authenticateHeader(`Bearer ${second}`)).toBe(caller);
      const other = authority.issue(caller, "two");
      authority.revoke("one");
      expect(codeOf(() => authority.authenticate({ token: second }))).toBe("unauthorized");
      expect(authority.authenticate({ token: other })).toBe(caller);
      file.write([trainer]);
      authority.look();
      expect(codeOf(() => authority.authenticate({ token: other }))).toBe("unauthorized");
    }),
  );

  test("does not begin with a file that cannot be used", () => {
    using file = new TokensPath([{ ...trainer, role: "root" }]);
    expect(codeOf(() => new Authority(file.path, () => {}))).toBe("validation-failed");
  });
});
