/**
 * What the server asks an S3 service with: the variables that AWS's own tools read, and no setting of ours, so that no secret stands on a
 * command line, in a file of settings or in what the server tells of itself.
 */

import type { S3Options } from "../loaders/source/s3-options.ts";
import { isS3Uri } from "../loaders/source/s3-uri.ts";
import { TensordError } from "../memory/error.ts";

type Texts = Readonly<Record<string, string | undefined>>;

const hint = "docs/models.md says what the server reads of its environment for s3:// roots.";

/**
 * @param roots of TENSORD_MODEL_ROOTS. @returns undefined where none of them is in S3: then nothing is looked at.
 * @throws TensordError `validation-failed` with the variable that cannot be used. No value that is secret is quoted.
 */
export function readS3Environment(environment: Texts, roots: readonly string[]): S3Options | undefined {
  if (!roots.some(isS3Uri)) return undefined;
  const first = (...names: string[]) =>
    names.map((name) => [name, environment[name] ?? ""] as const).find(([, text]) => text !== "");
  const [, region = "us-east-1"] = first("AWS_REGION", "AWS_DEFAULT_REGION") ?? [];
  if (!/^[A-Za-z0-9-]{1,64}$/.test(region))
    throw refused("AWS_REGION is no name of a region, want one such as eu-central-1");
  const named = first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
  const endpoint = named === undefined ? `https://s3.${region}.amazonaws.com` : toEndpoint(...named);
  return { endpoint, region, credentials: toCredentials(environment) };
}

function toEndpoint(name: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw refused(`${name} is no URL, want http://… or https://…`);
  // What stands in it may be a secret: it is not quoted.
  if (url.username !== "" || url.password !== "") throw refused(`${name} has a user or a password, want none`);
  if (url.search !== "" || url.hash !== "") throw refused(`${name} has a query or a fragment, want none`);
  return url.href.replace(/\/+$/, "");
}

function toCredentials(environment: Texts): S3Options["credentials"] {
  const accessKeyId = environment.AWS_ACCESS_KEY_ID || undefined;
  const secretAccessKey = environment.AWS_SECRET_ACCESS_KEY || undefined;
  if (accessKeyId === undefined && secretAccessKey === undefined) return undefined;
  if (accessKeyId === undefined) throw refused("AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not");
  if (secretAccessKey === undefined) throw refused("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not");
  const sessionToken = environment.AWS_SESSION_TOKEN || undefined;
  // The runtime's client takes it where it is given none, and cannot be told not to.
  if (sessionToken === undefined && (environment.S3_SESSION_TOKEN ?? "") !== "")
    throw refused(
      "S3_SESSION_TOKEN is set, which would go with these credentials: want it unset, or called AWS_SESSION_TOKEN",
    );
  return { accessKeyId, secretAccessKey, sessionToken };
}

function refused(state: string): TensordError {
  return new TensordError("validation-failed", `Cannot start: ${state}`, { hint });
}
