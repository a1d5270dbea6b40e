/**
 * The one table of failures, and the error that carries a row of it. Every layer throws `TensordError`; how a failure
 * looks on the wire is decided in `src/routes/problem.ts`, never here.
 */

/** Each code with its HTTP status, its title, and whether the same request may succeed later without a change. */
export const failures = {
  "malformed-body": { status: 400, title: "The request body cannot be read", retryable: false },
  unauthorized: { status: 401, title: "The request has no token that counts", retryable: false },
  forbidden: { status: 403, title: "The request is not allowed from there, or to this caller", retryable: false },
  "route-not-found": { status: 404, title: "No such route", retryable: false },
  "model-not-found": { status: 404, title: "No such model", retryable: false },
  "region-not-found": { status: 404, title: "No such region", retryable: false },
  "session-not-found": { status: 404, title: "No such session", retryable: false },
  "lease-not-found": { status: 404, title: "No such lease", retryable: false },
  "claim-not-found": { status: 404, title: "No such claim", retryable: false },
  "operation-not-found": { status: 404, title: "No such operation", retryable: false },
  "tensor-not-found": { status: 404, title: "The region has no such tensor", retryable: false },
  "device-not-found": { status: 404, title: "No such device", retryable: false },
  "vmm-pool-not-found": { status: 404, title: "The model has no elastic pool there", retryable: false },
  "method-not-allowed": { status: 405, title: "The route does not take this method", retryable: false },
  "model-exists": { status: 409, title: "The model is registered already", retryable: false },
  "model-in-use": { status: 409, title: "The model still has regions", retryable: false },
  "vmm-pool-exists": { status: 409, title: "The elastic pool exists with other values", retryable: false },
  "already-mapped": { status: 409, title: "Pages lie there already", retryable: false },
  "not-mapped": { status: 409, title: "No page lies there", retryable: false },
  "in-use": { status: 409, title: "A worker is in the way", retryable: true },
  "name-taken": { status: 409, title: "The name belongs to another region", retryable: false },
  "name-claimed": { status: 409, title: "Somebody else has the right to build the name", retryable: true },
  "region-sealed": { status: 409, title: "The region is sealed", retryable: false },
  "region-not-sealed": { status: 409, title: "The region is not sealed", retryable: false },
  "region-draining": { status: 409, title: "The region is deleted and drains", retryable: false },
  "region-has-writers": { status: 409, title: "Somebody maps the region for writing", retryable: true },
  "region-busy": { status: 409, title: "The region is in the middle of another step", retryable: true },
  cancelled: { status: 409, title: "The work was cancelled by another request", retryable: false },
  "revision-mismatch": { status: 412, title: "The revision is not the expected one", retryable: false },
  "payload-too-large": { status: 413, title: "The request body is too large", retryable: false },
  "unsupported-media-type": { status: 415, title: "The body is of a kind that is not taken", retryable: false },
  "range-not-satisfiable": { status: 416, title: "The range lies outside of the data", retryable: false },
  "validation-failed": { status: 422, title: "The request does not follow the schema", retryable: false },
  "invalid-page-size": { status: 422, title: "Pages cannot have that size", retryable: false },
  "out-of-range": { status: 422, title: "The range lies outside of the pool, or is no whole pages", retryable: false },
  "unsupported-format": { status: 422, title: "The file is of a format that is not loaded", retryable: false },
  "invalid-model-file": { status: 422, title: "The model file is broken, or not what it says", retryable: false },
  "owner-required": { status: 422, title: "The region needs an owner", retryable: false },
  "upgrade-required": { status: 426, title: "The route is a WebSocket", retryable: false },
  "too-many-requests": { status: 429, title: "Too many requests at once", retryable: true },
  internal: { status: 500, title: "An unexpected failure inside the server", retryable: false },
  "io-error": { status: 500, title: "The operating system refused an operation", retryable: false },
  "storage-unavailable": { status: 501, title: "This host cannot give that storage", retryable: false },
  "source-unavailable": { status: 502, title: "Where the model file lies does not answer", retryable: true },
  "not-ready": { status: 503, title: "The server is not ready yet", retryable: true },
  "shutting-down": { status: 503, title: "The server is shutting down", retryable: true },
  "deadline-exceeded": { status: 504, title: "The time for it is over", retryable: true },
  "session-quota-exceeded": { status: 507, title: "The session's quota is reached", retryable: true },
  "model-limit-exceeded": { status: 507, title: "The model's memory limit is reached", retryable: true },
  "pool-full": { status: 507, title: "The server's memory limit is reached", retryable: true },
  "out-of-shared-memory": { status: 507, title: "The shared memory file system is full", retryable: true },
  "out-of-inodes": { status: 507, title: "The shared memory file system has no free inodes", retryable: true },
  "out-of-device-memory": { status: 507, title: "The device has no such memory free", retryable: true },
  "out-of-descriptors": { status: 507, title: "The server has no free file descriptor", retryable: true },
} as const satisfies Record<string, { status: number; title: string; retryable: boolean }>;

export type FailureCode = keyof typeof failures;

/** What a failure may add to its sentence: numbers to act on, the errno, what to do next. */
export interface FailureFacts {
  readonly hint?: string;
  readonly errno?: string;
  readonly [key: string]: unknown;
}

/** A failure of the world: a row of the table, a sentence, and the facts. Our own mistakes are assertions instead. */
export class TensordError extends Error {
  override readonly name = "TensordError";
  readonly code: FailureCode;
  readonly facts: FailureFacts;

  /** @param detail what was asked, what is, and why: `Cannot <action>: <state>, want <state>`. */
  constructor(code: FailureCode, detail: string, facts: FailureFacts = {}, options?: { cause?: unknown }) {
    super(detail, options);
    this.code = code;
    this.facts = facts;
  }
}

/** A C library call that failed. Thrown by the seam to C only; the storage translates it and keeps it as the cause. */
export class SystemError extends Error {
  override readonly name = "SystemError";
  readonly call: string;
  readonly errno: number;
  readonly code: string;

  constructor(call: string, errno: number, code: string) {
    super(`${call}: ${code}`);
    this.call = call;
    this.errno = errno;
    this.code = code;
  }
}
