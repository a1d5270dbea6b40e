/** How a file becomes a region: its bytes copied, or the file itself, mapped where it lies; and why. Pure. */

import { TensordError } from "../memory/error.ts";
import type { OpenedFile, Standing } from "./file-lane.ts";
import { quotePath, unsupported, withPath } from "./formats/refusal.ts";

/** What a region of a loaded file is. */
export const loadModes = ["map", "copy"] as const;
export type LoadMode = (typeof loadModes)[number];
/** What may be asked for. */
export type WantedMode = LoadMode | "auto";

export interface Choice {
  readonly mode: LoadMode;
  /** In words that end a sentence. */
  readonly reason: string;
}

/** File systems of this machine's own disks and memory, by the number that statfs(2) has of them (<linux/magic.h>). */
const local: Readonly<Record<string, string>> = {
  ef53: "ext4",
  "58465342": "xfs",
  "9123683e": "btrfs",
  "2fc12fc1": "zfs",
  f2f52010: "f2fs",
  ca451a4e: "bcachefs",
  "1021994": "tmpfs",
  "858458f6": "ramfs",
  "794c7630": "overlay",
  "73717368": "squashfs",
  e0f5e1e2: "erofs",
  "9660": "iso9660",
  "5346544e": "ntfs",
  "7366746e": "ntfs3",
  "4d44": "vfat",
  "2011bab0": "exfat",
};

/** Others whose names people know. */
const others: Readonly<Record<string, string>> = {
  "6969": "nfs",
  "517b": "smb",
  ff534d42: "cifs",
  fe534d42: "smb2",
  c36400: "ceph",
  "5346414f": "afs",
  "1021997": "9p",
  bd00bd0: "lustre",
  "65735546": "fuse",
  "1161970": "gfs2",
};

/** Whether a look at the file, or a read, may take as long as another machine likes. What is not known as local may be. */
export function isRemote({ fileSystem }: Pick<Standing, "fileSystem">): boolean {
  return local[toMagic(fileSystem)] === undefined;
}

/**
 * @param wanted undefined: nobody said it.
 * @param isTargetSaid whether it was said what the region is to be made of, which only a copy can be.
 * @param uid the server's.
 * @throws TensordError `unsupported-format` if it is to be mapped and cannot be.
 */
export function chooseMode(
  wanted: WantedMode | undefined,
  file: Pick<OpenedFile, "compression" | "pieces" | "standing"> & { readonly path: string },
  isTargetSaid: boolean,
  uid: number,
): Choice {
  if (wanted === undefined) return { mode: "copy", reason: "that is the default" };
  if (wanted === "copy") return { mode: "copy", reason: "it was asked for" };
  const obstacle = findObstacle(file);
  if (wanted === "map") {
    if (obstacle === undefined) return { mode: "map", reason: "it was asked for" };
    throw withPath(file.path, unsupported(`${obstacle}, and so it cannot be mapped`, "Load it in mode copy, or auto."));
  }
  if (file.standing === null) return { mode: "copy", reason: noFile };
  const reason = obstacle ?? (isTargetSaid ? "it was said what the region is made of" : findDoubt(file.standing, uid));
  if (reason !== undefined) return { mode: "copy", reason };
  const { fileSystem } = file.standing;
  return {
    mode: "map",
    reason: `it lies on ${local[toMagic(fileSystem)]}, as it is read, and no worker may write to it`,
  };
}

const noFile = "it is an object, and no file";

/** Why nothing can be mapped that is so. */
function findObstacle({
  compression,
  pieces,
  standing,
}: Pick<OpenedFile, "compression" | "pieces" | "standing">): string | undefined {
  if (standing === null) return noFile;
  if (pieces !== undefined) return "the model is in several files";
  return compression === "none" ? undefined : `it is compressed (${compression})`;
}

/** Why it had better not be. */
function findDoubt(standing: Standing, uid: number): string | undefined {
  const { mode, uid: owner } = standing;
  if (isRemote(standing)) {
    const magic = toMagic(standing.fileSystem);
    return `its file system (${others[magic] ?? `0x${magic}`}) is none that is known as local`;
  }
  // Who owns a file may write to it whatever its mode says.
  if (owner !== 0 && owner !== uid) return `uid ${owner} owns it, and may write to it`;
  if ((mode & 0o002) !== 0) return "everybody may write to it";
  return (mode & 0o020) === 0 ? undefined : "its group may write to it";
}

function toMagic(fileSystem: number): string {
  return (fileSystem >>> 0).toString(16);
}

/** Said of what the region is made of, where it is to be a file. */
export function refuseTarget(path: string): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot map ${quotePath(path)} and make a region of other memory: want the one or the other`,
    { hint: 'Leave "storage", "private", "huge_pages" and "device_uuid" out, or load it in mode copy.' },
  );
}
