/**
 * What a region of `file` storage points at: a file of somebody else's, as it was when it was looked at first; what is written down of
 * it, and in what it can differ since. Pure.
 */

import { isAbsolute, join, relative, sep } from "node:path";

/** A file below a folder that whoever runs the server has named. 64-bit numbers are decimal. */
export interface Origin {
  readonly dev: string;
  readonly ino: string;
  readonly root: string;
  /** From the root. */
  readonly below: string;
  readonly byteSize: number;
  /** When it was last written, in ns since the epoch. */
  readonly mtimeNs: string;
  /** Whether its file system may keep who asks it waiting: such a file is looked at beside the event loop, and read by nobody here. */
  readonly isRemote: boolean;
}

/** In the order in which they are asked for. `not-allowed`: its folder is none of those that are named any more. */
export const fileChanges = ["not-allowed", "gone", "replaced", "modified"] as const;
export type FileChange = (typeof fileChanges)[number];

/** How a sentence says it of a file. */
export const changeWords: Readonly<Record<FileChange, string>> = {
  "not-allowed": "its folder is none of TENSORD_MODEL_ROOTS any more",
  gone: "it is not there any more, or cannot be reached",
  replaced: "another file is in its place",
  modified: "it was written to since it was loaded",
};

/** What stat(2) says of it. */
export interface FileStatus {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

export function toPath({ root, below }: Pick<Origin, "root" | "below">): string {
  return join(root, below);
}

/** @param status undefined: it is not there. @returns null if it is what it was. */
export function findChange(origin: Origin, status: FileStatus | undefined): FileChange | null {
  if (status === undefined) return "gone";
  if (String(status.dev) !== origin.dev || String(status.ino) !== origin.ino) return "replaced";
  const isWhole = Number(status.size) === origin.byteSize && String(status.mtimeNs) === origin.mtimeNs;
  return isWhole ? null : "modified";
}

/** Whether the folder is one of `roots`, or below one. */
export function isAllowed(root: string, roots: readonly string[]): boolean {
  return roots.some((each) => {
    const below = relative(each, root);
    return below === "" || !(below === ".." || below.startsWith(`..${sep}`) || isAbsolute(below));
  });
}

export function toRecord(origin: Origin): string {
  return JSON.stringify({ v: 1, ...origin });
}

/** @returns undefined of what is none of ours, or was cut off. */
export function parseRecord(text: string): Origin | undefined {
  let value: Partial<Record<keyof Origin | "v", unknown>>;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || value.v !== 1) return undefined;
  const { root, below, dev, ino, byteSize, mtimeNs, isRemote } = value;
  const isText = [root, below].every((each) => typeof each === "string" && each !== "" && !each.includes("\0"));
  const isNumbers = [dev, ino].every((each) => typeof each === "string" && /^\d{1,20}$/.test(each));
  const isTime = typeof mtimeNs === "string" && /^-?\d{1,20}$/.test(mtimeNs);
  const isSize = Number.isSafeInteger(byteSize) && (byteSize as number) >= 0;
  if (!isText || !isNumbers || !isTime || !isSize || typeof isRemote !== "boolean") return undefined;
  return { root, below, dev, ino, byteSize, mtimeNs, isRemote } as Origin;
}
