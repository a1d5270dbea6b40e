/**
 * What a server and its fd holder say to each other: one JSON object a message, over a Unix socket of packets, with the descriptors
 * beside it. ADR 26 is its specification. Both ends read what the other sends as if a stranger had sent it.
 */

/** The newest version that this program speaks. A holder outlives an upgrade of the server, so both sides say theirs first. */
export const protocolVersion = 1;

/** Tokens of one answer to `list`: they fit into a message of 64 KiB whatever their length. */
export const listedTokens = 500;

/** A region's token, or what tells several descriptors of one region apart. */
const tokenPattern = /^[a-z0-9.-]{1,64}$/;

/** Where the fd holder listens, in the instance's own directory. */
export const socketName = "fd-holder.sock";

/** The command that is the fd holder. It is in no help: a server runs it. */
export const holderCommand = "fd-holder";

export type Request = { readonly id: number } & (
  | { readonly op: "hello"; readonly v: number }
  /** `ttl_ms` is a server's; who only looks says none, and no time runs anew for it. */
  | { readonly op: "own"; readonly ttl_ms?: number }
  | { readonly op: "keep" | "give" | "drop"; readonly token: string }
  | { readonly op: "list"; readonly after: string }
  | { readonly op: "end" }
);

/** A request before it has its number. */
export type Question = Request extends infer Each ? (Each extends { id: number } ? Omit<Each, "id"> : never) : never;

export const holderProblems = [
  "malformed",
  "version",
  "not-owner",
  "unknown-token",
  "no-descriptor",
  "out-of-descriptors",
] as const;
export type HolderProblem = (typeof holderProblems)[number];

export type Answer = { readonly id: number } & Said;

/** An answer without the number of what it answers. */
export type Said =
  | ({ readonly ok: true } & Partial<HolderStatus> & { readonly tokens?: readonly string[]; readonly more?: boolean })
  | { readonly ok: false; readonly problem: HolderProblem };

/** What `hello` is answered with. */
export interface HolderStatus {
  /** The version to be spoken: the smaller one of both sides' newest. */
  readonly v: number;
  readonly pid: number;
  readonly descriptors: number;
  readonly age_ms: number;
}

/** The request in a message, or undefined if it is none. */
export function parseRequest(data: Buffer): Request | undefined {
  const value = parseObject(data);
  if (value === undefined || !isCount(value.id)) return undefined;
  const { id, op, v, ttl_ms, token, after } = value;
  switch (op) {
    case "hello":
      return isCount(v) ? { id, op, v } : undefined;
    case "own":
      if (ttl_ms === undefined) return { id, op };
      return isCount(ttl_ms) ? { id, op, ttl_ms } : undefined;
    case "keep":
    case "give":
    case "drop":
      return isToken(token) ? { id, op, token } : undefined;
    case "list":
      return after === "" || isToken(after) ? { id, op, after } : undefined;
    case "end":
      return { id, op };
    default:
      return undefined;
  }
}

/** The answer in a message, or undefined if it is none. */
export function parseAnswer(data: Buffer): Answer | undefined {
  const value = parseObject(data);
  if (value === undefined || !isCount(value.id)) return undefined;
  const { id, ok, problem, v, pid, descriptors, age_ms, tokens, more } = value;
  if (ok === false) {
    const known = holderProblems.find((each) => each === problem);
    return { id, ok, problem: known ?? "malformed" };
  }
  if (ok !== true) return undefined;
  const counts = Object.entries({ v, pid, descriptors, age_ms }).filter(([, count]) => isCount(count));
  const listed = Array.isArray(tokens) ? { tokens: tokens.filter(isToken), more: more === true } : {};
  return { id, ok, ...Object.fromEntries(counts), ...listed };
}

function parseObject(data: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(data.toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isToken(value: unknown): value is string {
  return typeof value === "string" && tokenPattern.test(value);
}
