/** Objects that may be loaded: a URI becomes bucket and key below one of the configured prefixes, or is refused. It asks nobody. Pure. */

import { TensordError } from "../../memory/error.ts";
import { isPlainText } from "../../memory/naming.ts";
import { quotePath } from "../formats/refusal.ts";
import { fileLimits } from "../limits.ts";

/** Where an object lies. Its bytes are asked for with what whoever runs the server has given it. */
export interface S3Object {
  readonly bucket: string;
  readonly key: string;
}

const scheme = "s3://";
// As S3 names buckets: letters, digits, dots and hyphens; no way into another part of a URL.
const bucketPattern = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

export function isS3Uri(text: string): boolean {
  return text.startsWith(scheme);
}

/** The URI of an object, as it is asked for and told of. */
export function toS3Uri({ bucket, key }: S3Object): string {
  return `${scheme}${bucket}/${key}`;
}

/** What is wrong with a root, `s3://bucket` or `s3://bucket/prefix`; undefined of one that can be used. */
export function mistakeOfS3Root(root: string): string | undefined {
  const { bucket, key } = split(root);
  if (!bucketPattern.test(bucket)) return "want s3://bucket or s3://bucket/prefix, the bucket as S3 names them";
  return key === "" ? undefined : mistakeOfKey(key);
}

/**
 * The key is taken as it stands, as `aws s3 cp` takes it: a `%20` is these three characters.
 * @param roots of which those count that are `s3://` prefixes: folders, so that `s3://b/models` has no `s3://b/models-of-others/x`.
 * @throws TensordError `validation-failed` of what is no URI of an object, `forbidden` of one that is below no root.
 */
export function toS3Object(uri: string, roots: readonly string[]): S3Object & { readonly root: string } {
  const { bucket, key } = split(uri);
  if (!bucketPattern.test(bucket) || key === "") throw refused(uri, "it names no object in a bucket");
  const mistake = mistakeOfKey(key);
  if (mistake !== undefined) throw refused(uri, mistake);
  const root = roots.filter(isS3Uri).find((one) => uri.startsWith(`${one}/`));
  if (root !== undefined) return { bucket, key, root };
  const where = roots.length === 0 ? "this server loads no files" : `it is below none of ${roots.join(", ")}`;
  throw new TensordError("forbidden", `Cannot load ${quotePath(uri)}: ${where}`, {
    hint: "Whoever runs the server names the prefixes whose objects it may read for its callers: TENSORD_MODEL_ROOTS.",
  });
}

function split(uri: string): S3Object {
  const rest = uri.slice(scheme.length);
  const end = rest.indexOf("/");
  return end < 0 ? { bucket: rest, key: "" } : { bucket: rest.slice(0, end), key: rest.slice(end + 1) };
}

/** Why a key cannot be asked for as it stands; undefined of one that can. */
export function mistakeOfKey(key: string): string | undefined {
  if (!isPlainText(key) || !key.isWellFormed()) return "its key has a control character, or half of one";
  if (Buffer.byteLength(key) > fileLimits.objectKeyBytes) {
    return `its key has ${Buffer.byteLength(key)} bytes, want at most ${fileLimits.objectKeyBytes}`;
  }
  // On its way through URLs such a part would lead out of the prefix.
  if (/(^|\/)\.\.?(\/|$)/.test(key)) return "its key has . or .. between slashes";
  // The runtime's client takes such keys for others: slashes at the ends away, and a backslash for one.
  if (/^\/|\/$|\\/.test(key)) return "its key begins or ends with a slash, or has a backslash";
  return undefined;
}

function refused(uri: string, state: string): TensordError {
  return new TensordError("validation-failed", `Cannot load ${quotePath(uri)}: ${state}, want s3://bucket/key`, {
    hint: "Write the key as it is in the bucket, without %20 and the like.",
  });
}
