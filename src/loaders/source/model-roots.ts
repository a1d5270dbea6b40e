/**
 * Where model files may be loaded from: a URI becomes a path below one of the configured roots, or an object below a prefix (`s3-uri.ts`), or
 * is refused. It opens nothing. Pure.
 */

import { isAbsolute, normalize, relative, sep } from "node:path";
import { TensordError } from "../../memory/error.ts";
import { isAllowed } from "../../memory/storage/file/origin.ts";
import { quotePath } from "../formats/refusal.ts";
import { isS3Uri, type S3Object, toS3Object } from "./s3-uri.ts";

/** As long as names are (`namePattern`). */
const nameCharacters = 128;

/** A file below a root. That links on the way stay below it is for who opens it to see to. */
export interface ModelPath {
  /** As it was asked for, for sentences. */
  readonly path: string;
  readonly root: string;
  /** From the root. */
  readonly below: string;
  /** Of what lies in S3, which has no path. */
  readonly object?: S3Object | undefined;
}

/**
 * @param roots absolute paths and `s3://` prefixes, as TENSORD_MODEL_ROOTS has them.
 * @throws TensordError `validation-failed` of what is no `file://` URI of a path, nor `s3://`; `forbidden` of one that is below no root.
 */
export function toModelPath(uri: string, roots: readonly string[]): ModelPath {
  if (isS3Uri(uri)) return toObjectPath(uri, roots);
  const path = toPath(uri);
  const found = foldersOf(roots)
    .map((root) => ({ path, root, below: relative(root, path) }))
    .filter(isBelow);
  // Of roots one below the other, the innermost: its own links count from there.
  const [inner] = found.toSorted((a, b) => b.root.length - a.root.length);
  if (inner !== undefined) return inner;
  const where = roots.length === 0 ? "this server loads no files" : `it is below none of ${roots.join(", ")}`;
  throw new TensordError("forbidden", `Cannot load ${quotePath(path)}: ${where}`, {
    hint: "Whoever runs the server names the folders whose files it may read for its callers: TENSORD_MODEL_ROOTS.",
  });
}

/** Those that are folders. */
export function foldersOf(roots: readonly string[]): readonly string[] {
  return roots.filter((root) => !isS3Uri(root));
}

/** Whether a folder, or a prefix of a bucket, is one of the roots, or below one. */
export function isBelowRoots(root: string, roots: readonly string[]): boolean {
  if (isS3Uri(root)) return roots.some((each) => isS3Uri(each) && (root === each || root.startsWith(`${each}/`)));
  return isAllowed(root, foldersOf(roots));
}

function toObjectPath(uri: string, roots: readonly string[]): ModelPath {
  const { root, bucket, key } = toS3Object(uri, roots);
  return { path: uri, root, below: uri.slice(root.length + 1), object: { bucket, key } };
}

function isBelow({ below }: ModelPath): boolean {
  return below !== "" && below !== ".." && !below.startsWith(`..${sep}`) && !isAbsolute(below);
}

function toPath(uri: string): string {
  let url: URL;
  let path: string;
  try {
    url = new URL(uri);
    path = decodeURIComponent(url.pathname);
  } catch {
    throw refused(uri, "it is no URI");
  }
  if (url.protocol !== "file:") throw refused(uri, `its scheme is ${url.protocol.slice(0, -1)}`);
  if (url.host !== "" && url.host !== "localhost") throw refused(uri, `it is on the host ${url.host}`);
  if (url.search !== "" || url.hash !== "") throw refused(uri, "it has a query or a fragment");
  if (path.includes("\0")) throw refused(uri, "it has a NUL");
  return normalize(path);
}

function refused(uri: string, state: string): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot load ${quotePath(uri)}: ${state}, want file:///path or s3://bucket/key`,
    {
      hint: "Write characters such as a space, % and # as %20, %25 and %23.",
    },
  );
}

/** What a region is called whose maker gave no name: as its file, without the suffixes, in the characters of names. */
export function toRegionName(path: string): string {
  const base = path.slice(path.lastIndexOf("/") + 1).replace(/\.(gz|zst)$/i, "");
  const stem = base.replace(/\.(safetensors(\.index\.json)?|gguf|npy|npz)$/i, "") || base;
  const name = stem.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^\.+/, "");
  return name.slice(0, nameCharacters) || "model";
}
