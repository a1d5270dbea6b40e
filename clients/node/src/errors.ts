/** The one error class of this package, and the one place where a server's answer becomes one. */

import type { components } from "./generated/openapi.ts";

/** What a server answers with: the table is in its OpenAPI document. */
export type ServerCode = components["schemas"]["FailureCode"];

/** What this package finds out by itself. */
export type ClientCode =
  /** Nobody listens, or the answer was lost. */
  | "server-unavailable"
  /** This uid may not open the socket or the region's file. */
  | "access-denied"
  /** A system call on the region's file failed. */
  | "mapping-failed"
  /** This process looks at another file system than the server. */
  | "wrong-namespace"
  /** A reference, or a descriptor, to a region that is gone. */
  | "stale-ref"
  /** A request that went by a ring has no result: whoever took it said why, died, or gave it up. */
  | "request-failed"
  /** The region, tensor or client was closed by this program. */
  | "closed"
  /** This host, runtime or dtype cannot do it. */
  | "feature-unavailable"
  /** The region has no such tensor. */
  | "tensor-not-found"
  /** The server answered what is no answer. */
  | "server-fault";

/** A known code, or one that a newer server has. */
export type ErrorCode = ServerCode | ClientCode | (string & {});

export interface ErrorOptions {
  /** The HTTP status, if a server was involved. */
  readonly status?: number | undefined;
  /** What to do about it. */
  readonly hint?: string | undefined;
  /** The numbers beside the sentence: `requestedBytes`, `availableBytes` … */
  readonly fields?: Readonly<Record<string, unknown>> | undefined;
  readonly cause?: unknown;
}

const ourName = "TensordError";

/** Everything that this package throws on purpose; `code` says what it is, and `isTensordError` asks for it. */
export class TensordError extends Error {
  override readonly name = ourName;
  readonly code: ErrorCode;
  readonly status: number | undefined;
  /** What was asked, and why it failed. `message` is this and the hint. */
  readonly detail: string;
  readonly hint: string | undefined;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, detail: string, { status, hint, fields = {}, cause }: ErrorOptions = {}) {
    super(hint === undefined ? detail : `${detail}\nhint: ${hint}`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.status = status;
    this.detail = detail;
    this.hint = hint;
    this.fields = fields;
  }
}

/** Whether `error` is one of ours, and of that `code` if one is given. */
export function isTensordError(error: unknown, code?: ErrorCode): error is TensordError {
  // By its name: the CommonJS form of this package, and a realm of Jest's, have classes of their own.
  const isOurs = typeof error === "object" && error !== null && "code" in error && "name" in error;
  return isOurs && error.name === ourName && (code === undefined || error.code === code);
}

/** Whether nobody was there to answer, or somebody who refuses for the moment only: worth trying again. */
export function isPassing(error: unknown): boolean {
  return (
    isTensordError(error, "server-unavailable") || (isTensordError(error) && isRefusedForNow(error.status, error.code))
  );
}

/** Whether the server said so itself: it goes, waits for a device's driver, or has no descriptor just now. */
export function isRefusedForNow(status: number | undefined, code: unknown): boolean {
  const isAway = code === "shutting-down" || code === "not-ready";
  return (status === 503 && isAway) || (status === 507 && code === "out-of-descriptors");
}

/** What the server's hint cannot know: how the cure is spelled here. */
const ownHints: Readonly<Record<string, string>> = {
  "region-not-found":
    "client.create(name, array, { ttlMs }) makes it, client.attach(name, { timeoutMs: 30_000 }) waits for it",
  "model-not-found": "client.registerModel(name)",
  "device-not-found": "client.devices() lists them",
  "vmm-pool-not-found": "client.pool(model, deviceUuid).create({ virtualCapacity })",
  "vmm-pool-exists": "client.pool(model, deviceUuid).describe() says what is there, change() its limits",
  "model-exists": "client.changeModel(name, { memoryLimitBytes })",
  "model-in-use": "client.unregisterModel(name, { drain: true })",
  "name-taken": '{ ifExists: "attach" } or "replace"',
  "name-claimed": "client.getOrCreate(name, build) takes turns",
  "owner-required": "pass { ttlMs }, { lingerMs } or { persist: true }, or connect with a session",
};

const standardFields = new Set(["type", "title", "status", "detail", "code", "hint", "instance"]);

/** Turns an `application/problem+json` object, in our words, into its error. */
export function fromProblem(status: number, problem: Readonly<Record<string, unknown>>): TensordError {
  const text = (key: string) => (typeof problem[key] === "string" ? problem[key] : undefined);
  const code = text("code") ?? `http-${status}`;
  const hints = [text("hint"), ownHints[code]].filter((hint) => hint !== undefined);
  return new TensordError(code, text("detail") ?? text("title") ?? `The server answered ${status}`, {
    status,
    hint: hints.length === 0 ? undefined : hints.join("; in TypeScript: "),
    fields: Object.fromEntries(Object.entries(problem).filter(([key]) => !standardFields.has(key))),
  });
}
