/**
 * What an S3 service answers, or does not, becomes what a caller can do about it. Nothing of a request is quoted: its address carries a
 * signature. Pure.
 */

import { TensordError } from "../../memory/error.ts";
import { quotePath } from "../formats/refusal.ts";
import type { S3Options } from "./s3-options.ts";
import { type S3Object, toS3Uri } from "./s3-uri.ts";

/** Something that may be over when it is asked for again. */
export class Passing extends Error {
  /** @param state what is, as the end of a sentence. */
  constructor(state: string) {
    super(state);
  }
}

function cannot(object: S3Object): string {
  return `Cannot load ${quotePath(toS3Uri(object))}`;
}

/** It went on to the last attempt. */
export function givenUp(object: S3Object, attempts: number, { message }: Passing): TensordError {
  return new TensordError("source-unavailable", `${cannot(object)}: ${message}, ${attempts} times in a row`, {
    hint: "Load it again later. Whether the service is well, and reachable from the server, its operator can tell.",
  });
}

export function changed(object: S3Object): TensordError {
  return new TensordError("invalid-model-file", `${cannot(object)}: it changed while it was loaded`, {
    hint: "Load it again once nobody writes to it.",
  });
}

export function empty(object: S3Object): TensordError {
  return new TensordError("invalid-model-file", `${cannot(object)}: it is empty, want a model file`, {
    hint: "Upload the file anew.",
  });
}

/** Of a service that answers what cannot be gone by. */
export function unusable(object: S3Object, state: string): TensordError {
  return new TensordError("io-error", `${cannot(object)}: ${state}`, {
    hint: "Want a service that reads ranges and tells an ETag, as S3 does. TENSORD_MODEL_ROOTS and AWS_ENDPOINT_URL say which is asked.",
  });
}

/** Statuses that pass, and what the connection itself may meet. */
const passingStatuses: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);
const passingCodes: ReadonlySet<string> = new Set([
  "RequestTimeout",
  "SlowDown",
  "InternalError",
  "ServiceUnavailable",
  "OperationAborted",
]);

/** What a refusal is. @param code the one in its body, if there is one. */
export function toRefusal(
  object: S3Object,
  options: Pick<S3Options, "credentials" | "region">,
  status: number,
  headers: Headers,
  code: string,
): Passing | TensordError {
  const said = code === "" ? `${status}` : `${status} ${code}`;
  if (passingStatuses.has(status) || passingCodes.has(code)) return new Passing(`the service answers ${said}`);
  if (status >= 300 && status < 400) return elsewhere(object, options, headers);
  if (status === 404) {
    const what = code === "NoSuchBucket" ? `there is no bucket ${object.bucket}` : "it is not there";
    return new TensordError("invalid-model-file", `${cannot(object)}: ${what}`, {
      errno: code === "" ? "NoSuchKey" : code,
      hint: "Upload it, or name another: a key is taken as it stands, with its slashes.",
    });
  }
  if (status === 401 || status === 403) return denied(object, options, said, code);
  return unusable(object, `the service answers ${said}`);
}

function denied(
  object: S3Object,
  { credentials }: Pick<S3Options, "credentials">,
  said: string,
  code: string,
): TensordError {
  const as = credentials === undefined ? "the server, which has no credentials, " : "the server with its credentials ";
  return new TensordError("io-error", `${cannot(object)}: ${as}may not read it (${said})`, {
    errno: code === "" ? "AccessDenied" : code,
    hint:
      "Whoever runs the server gives it AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of who may read there (s3:GetObject). The same is " +
      "answered of an object that is not there, where it may not be known.",
  });
}

/** A signature counts for one host: whom it sends on to is not asked. */
function elsewhere(object: S3Object, { region }: Pick<S3Options, "region">, headers: Headers): TensordError {
  const other = headers.get("x-amz-bucket-region") ?? "";
  const isRegion = /^[a-z0-9-]{1,32}$/.test(other);
  const state = isRegion
    ? `its bucket lies in the region ${other}, and ${region} was asked`
    : "the service sends on to another address, which is not followed";
  return new TensordError("io-error", `${cannot(object)}: ${state}`, {
    hint: isRegion ? `Start the server with AWS_REGION=${other}.` : "Name the service itself: AWS_ENDPOINT_URL.",
  });
}

/** What a request failed with that got no answer, or not all of one. */
export function toFailedRequest(object: S3Object, error: unknown): Passing | TensordError {
  const { code } = error as { code?: unknown };
  const word = typeof code === "string" && /^\w{1,64}$/.test(code) ? code : "no answer";
  if (!/CERT|SSL|TLS|SIGNATURE|ISSUER/.test(word)) return new Passing(`the service cannot be reached (${word})`);
  return new TensordError("io-error", `${cannot(object)}: the service's certificate does not count (${word})`, {
    errno: word,
    hint: "Have the server trust who signed it: NODE_EXTRA_CA_CERTS names a file of certificates.",
  });
}
