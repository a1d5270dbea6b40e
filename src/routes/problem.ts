/**
 * The one mapping from a failure to RFC 9457 Problem Details, and how a route declares the failures it may answer with.
 * What is not one of ours becomes a 500 with an id and nothing else.
 */

import { HTTPException } from "hono/http-exception";
import { type FailureCode, failures, TensordError } from "../memory/error.ts";
import { toOutOfDescriptors } from "../memory/os/descriptors.ts";
import { type AnswerHeaders, acceptEncoding, contentRange, retryAfter, wwwAuthenticate } from "./answer-headers.ts";
import { Problem, type ProblemBody } from "./schemas/problem.ts";

export const problemMediaType = "application/problem+json";

/** What any request may meet: no token, the transport's guard, a query parameter that it has not, no descriptor, a rate, and a mistake of ours. */
export const alwaysPossible = [
  "unauthorized",
  "forbidden",
  "validation-failed",
  "internal",
  "out-of-descriptors",
  "too-many-requests",
] as const satisfies readonly FailureCode[];

/** What a request with a body may meet beside that. */
export const bodyFailures = [
  "malformed-body",
  "payload-too-large",
  "unsupported-media-type",
] as const satisfies readonly FailureCode[];

const content = { [problemMediaType]: { schema: Problem } };
/** What `toProblemResponse` sends with them. */
const headersOf: Readonly<Record<number, { headers: AnswerHeaders }>> = {
  401: { headers: wwwAuthenticate },
  415: { headers: acceptEncoding },
  416: { headers: contentRange },
  429: { headers: retryAfter },
  503: { headers: retryAfter },
};
const anyOther = { description: "A failure that a later server, or what stands in front of it, may have.", content };

/**
 * Answers that a route declares for these failures, grouped by status, and for any other. Call it once a route: statuses
 * would collide.
 */
export function declareFailures(...codes: FailureCode[]) {
  const byStatus: Record<number, { description: string; headers?: AnswerHeaders; content: typeof content }> = {};
  for (const code of new Set(codes)) {
    const { status, title } = failures[code];
    const line = `\`${code}\`: ${title}.`;
    const known = byStatus[status];
    if (known === undefined) byStatus[status] = { description: line, ...headersOf[status], content };
    else known.description += ` ${line}`;
  }
  return { ...byStatus, default: anyOther };
}

/** @param onUnexpected hears of what is a mistake of ours, with the id that the client gets. */
export function toProblem(
  error: unknown,
  requestId: string | undefined,
  onUnexpected: (error: unknown) => void,
): ProblemBody {
  const failure = toFailure(error, onUnexpected);
  const { status, title } = failures[failure.code];
  const { hint, ...facts } = failure.facts;
  return {
    type: `urn:tensord:problem:${failure.code}`,
    title,
    status,
    detail: failure.message,
    code: failure.code,
    ...(hint === undefined ? {} : { hint }),
    ...(requestId === undefined ? {} : { request_id: requestId }),
    ...facts,
  };
}

/** @param bindings hear how many bytes it has. */
export function toProblemResponse(
  problem: ProblemBody,
  bindings?: { readonly sent?: (bytes: number) => void },
): Response {
  const headers: Record<string, string> = { "content-type": problemMediaType };
  if (problem.status === 503) headers["retry-after"] = "1";
  if (problem.retry_after_seconds !== undefined) headers["retry-after"] = String(problem.retry_after_seconds);
  if (problem.status === 401) headers["www-authenticate"] = 'Bearer realm="tensord"';
  if (typeof problem.complete_length === "number") headers["content-range"] = `bytes */${problem.complete_length}`;
  if (typeof problem.accept_encoding === "string") headers["accept-encoding"] = problem.accept_encoding;
  if (problem.request_id !== undefined) headers["x-request-id"] = problem.request_id;
  const bytes = Buffer.from(JSON.stringify(problem));
  bindings?.sent?.(bytes.length);
  return new Response(bytes, { status: problem.status, headers });
}

function toFailure(error: unknown, onUnexpected: (error: unknown) => void): TensordError {
  if (error instanceof TensordError) return error;
  const outOfDescriptors = toOutOfDescriptors(error);
  if (outOfDescriptors !== undefined) return outOfDescriptors;
  if (error instanceof HTTPException && error.status === 400) {
    return new TensordError("malformed-body", "Cannot read the body: it is not JSON", {
      hint: "Send one JSON object, in UTF-8.",
    });
  }
  if (error instanceof HTTPException && error.status === 415) return unsupportedMediaType();
  onUnexpected(error);
  return new TensordError("internal", "Cannot answer the request: the server made a mistake", {
    hint: "The server's log has the cause under this request_id. Please report it.",
  });
}

export function unsupportedMediaType(): TensordError {
  return new TensordError("unsupported-media-type", "Cannot read the body: its content type is not application/json", {
    hint: "Send the header Content-Type: application/json.",
  });
}
