/**
 * The file of tokens: who may call, by which secret or uid, as what. It is read whole, and refused whole. What is done with what it
 * says is `authority.ts`'s.
 */

import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { normalize } from "node:path";
import { z } from "@hono/zod-openapi";
import { isS3Uri, mistakeOfS3Root } from "../../loaders/source/s3-uri.ts";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { namePattern } from "../../memory/naming.ts";
import { roles } from "../../routes/access/caller.ts";

/** What may stand in the header: RFC 6750's b64token. */
export const tokenText = /^[A-Za-z0-9._~+/-]{32,512}=*$/;

const Name = z.string().regex(namePattern, "want 1 to 128 of A-Z a-z 0-9 . _ - and no leading dot");

function isRoot(path: string): boolean {
  if (path.endsWith("/")) return false;
  if (isS3Uri(path)) return mistakeOfS3Root(path) === undefined;
  return path.startsWith("/") && normalize(path) === path;
}

const Entry = z
  .strictObject({
    name: Name,
    role: z.enum(roles),
    token: z
      .string()
      .regex(tokenText, "want 32 to 512 of A-Z a-z 0-9 . _ ~ + / - (`openssl rand -hex 32` makes one)")
      .optional(),
    token_sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, "want the token's SHA-256 in 64 hexadecimal digits")
      .optional(),
    uids: z
      .array(
        z
          .int()
          .min(0)
          .max(2 ** 32 - 2),
      )
      .max(limits.tokenUids)
      .optional(),
    models: z.array(Name).min(1).max(limits.models).optional(),
    roots: z
      .array(z.string().refine(isRoot, "want an absolute, normal path, or s3://bucket/prefix"))
      .max(limits.tokenRoots)
      .optional(),
    requests_per_second: z.number().min(0.01).max(1_000_000).optional(),
  })
  .refine(
    ({ token, token_sha256 }) => token === undefined || token_sha256 === undefined,
    "want `token` or `token_sha256`",
  )
  .refine(
    ({ token, token_sha256, uids }) => token !== undefined || token_sha256 !== undefined || uids !== undefined,
    "nobody can be it, want `token`, `token_sha256` or `uids`",
  )
  .refine(({ role, roots }) => role !== "admin" || roots === undefined, "an admin is held to no roots")
  .refine(({ role, models }) => role !== "admin" || models === undefined, "an admin is held to no models");

const TokensFile = z.strictObject({ tokens: z.array(Entry).min(1).max(limits.tokens) });

/** One line of the file. */
export interface TokenEntry extends Omit<z.infer<typeof Entry>, "token" | "token_sha256"> {
  /** The token's SHA-256; undefined: only its uids are it. */
  readonly hash: Buffer | undefined;
}

export function hashToken(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** @throws TensordError `validation-failed`, which never has a token in it. */
export function parseTokens(text: string, path: string): readonly TokenEntry[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message has a piece of the text in it.
    throw refused(path, "it is no JSON");
  }
  const result = TokensFile.safeParse(value);
  if (!result.success) {
    const issues = result.error.issues.slice(0, limits.validationIssues);
    throw refused(path, issues.map((issue) => `${issue.path.join(".") || "all of it"}: ${issue.message}`).join("; "));
  }
  const entries = result.data.tokens.map(({ token, token_sha256: hex, ...entry }) => ({
    ...entry,
    hash: token !== undefined ? hashToken(token) : hex === undefined ? undefined : Buffer.from(hex, "hex"),
  }));
  const names = new Map<string, string>();
  for (const { name, hash, uids = [] } of entries) {
    for (const key of [...(hash === undefined ? [] : [hash.toString("hex")]), ...uids.map((uid) => `uid ${uid}`)]) {
      const other = names.get(key);
      const what = key.startsWith("uid ") ? key : "one and the same token";
      if (other !== undefined) throw refused(path, `${JSON.stringify(other)} and ${JSON.stringify(name)} have ${what}`);
      names.set(key, name);
    }
  }
  return entries;
}

/** The user that the server runs as, with each of its groups. */
export interface FileUser {
  readonly uid: number;
  readonly gids: readonly number[];
}

/** The modes that keep others out, in words. */
const wanted = "want 0600, or 0640 or 0440 with a group that the server is in";

/**
 * Why the file cannot be trusted with tokens, and what to do; undefined: it can. A group may read it, since Kubernetes gives each file
 * of a secret to the pod's `fsGroup` (0440); who is in a group that the server is not in, or may write to it, is not known.
 */
export function judgeTokensFile(
  { mode, uid, gid }: { readonly mode: number; readonly uid: number; readonly gid: number },
  path: string,
  user: FileUser,
): { readonly state: string; readonly cure?: string } | undefined {
  if ((mode & 0o170000) !== 0o100000) return { state: "it is no file" };
  if (uid !== user.uid && uid !== 0) return { state: `it belongs to uid ${uid}`, cure: `chown ${user.uid} ${path}` };
  const its = `its mode is ${(mode & 0o7777).toString(8).padStart(4, "0")}`;
  const cure = `chmod 600 ${path}, or of a Kubernetes secret \`defaultMode: 0400\``;
  if ((mode & 0o007) !== 0) return { state: `${its}, so that everybody reaches it; ${wanted}`, cure };
  if ((mode & 0o030) !== 0)
    return { state: `${its}, so that its group may do more than read it; ${wanted}`, cure: `chmod 600 ${path}` };
  if ((mode & 0o040) !== 0 && !user.gids.includes(gid))
    return { state: `${its} and its group ${gid}, which the server is not in; ${wanted}`, cure };
  return undefined;
}

/**
 * What the file says now: small, and asked only when it has changed, so it is read in one turn. Whoever else could read it would have the tokens, and whoever could write it, the server.
 * @throws TensordError `validation-failed`, `io-error`.
 */
export function readTokens(path: string): readonly TokenEntry[] {
  let fd: number;
  try {
    // Of a pipe in its place nobody may come to the other end.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const { code = "unknown" } = cause as NodeJS.ErrnoException;
    throw new TensordError(
      "io-error",
      `Cannot read tokens from ${path}: ${code}`,
      { errno: code, hint: "TENSORD_TOKENS_FILE is a file that the server's user can read: see docs/security.md." },
      { cause },
    );
  }
  try {
    const stat = fstatSync(fd);
    const user = { uid: process.geteuid?.() ?? 0, gids: [process.getegid?.() ?? 0, ...(process.getgroups?.() ?? [])] };
    const complaint = judgeTokensFile(stat, path, user);
    if (complaint !== undefined) throw refused(path, complaint.state, complaint.cure);
    const { size } = stat;
    if (size > limits.tokensFileBytes)
      throw refused(path, `it has ${size} bytes, want at most ${limits.tokensFileBytes}`);
    return parseTokens(readFileSync(fd, "utf8"), path);
  } finally {
    closeSync(fd);
  }
}

function refused(path: string, state: string, cure = "docs/security.md says what stands in it."): TensordError {
  return new TensordError("validation-failed", `Cannot use the tokens of ${path}: ${state}`, { hint: cure });
}
