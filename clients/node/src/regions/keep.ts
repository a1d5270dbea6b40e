/**
 * A sealed region that no lock can lease, since another process write-locks its lease byte or its file is somebody else's, is mapped all the same: its pages
 * are there for as long as they are mapped, and the books need the lease, which is asked for.
 */

import { isTensordError } from "../errors.ts";
import { Barred, Mismatch, type Place } from "../memory/attach.ts";
import { Attachment } from "../memory/attachment.ts";
import { type Opening, openFile, openFileNow, type RegionFile } from "../memory/open.ts";
import { isOrigin } from "../memory/origin-file.ts";
import type { Access } from "../memory/pages.ts";
import type { Session } from "../session/session.ts";

/** What of a file to map, and how. */
type Range = readonly [place: Place, byteOffset: number, byteSize: number, access: Access];

const gone = ["region-not-found", "region-draining"];

/** Maps a range, with a lease by request where no lock can be taken. Throws as `openFile` does */
export async function mapKept(
  session: Session | undefined,
  range: Range,
  signal?: AbortSignal | undefined,
): Promise<Attachment> {
  const opening = { isWriter: range[3] === "write", signal };
  return holdKept(session, range[0], opening, (opened) => mapFile(opened, range));
}

/** Opens a region's file, and has it held, with a lease by request where no lock can be taken. Throws as `openFile` does. */
export async function holdKept<Held extends { whenOver(ended: () => void): void }>(
  session: Session | undefined,
  place: Place,
  opening: Omit<Opening, "isLeased">,
  hold: (opened: RegionFile) => Held,
): Promise<Held> {
  try {
    if (!isOrigin(place)) return hold(await openFile(place, { ...opening, isLeased: true }));
  } catch (error) {
    if (!(error instanceof Barred)) throw error;
  }
  const end = await lease(session, place);
  try {
    const barred = hold(await openFile(place, { ...opening, isLeased: false }));
    if (end !== undefined) barred.whenOver(end);
    return barred;
  } catch (error) {
    end?.();
    throw error;
  }
}

/** As `mapKept`, at once: the lease comes soon. */
export function mapKeptSoon(session: Session | undefined, ...range: Range): Attachment {
  const [place] = range;
  const isWriter = range[3] === "write";
  try {
    if (!isOrigin(place)) return mapFile(openFileNow(place, { isWriter, isLeased: true }), range);
  } catch (error) {
    if (!(error instanceof Barred)) throw error;
  }
  const barred = mapFile(openFileNow(place, { isWriter, isLeased: false }), range);
  let isOver = false;
  let end: (() => void) | undefined;
  barred.whenOver(() => {
    isOver = true;
    end?.();
  });
  void lease(session, place).then((taken) => {
    if (isOver) taken?.();
    else end = taken;
  }, ignoreGone);
  return barred;
}

/** It went while it was mapped, which takes nothing from who maps it. */
function ignoreGone(): void {}

function mapFile(opened: RegionFile, [, byteOffset, byteSize, access]: Range): Attachment {
  return new Attachment(opened, byteOffset, byteSize, access);
}

/** Says so where there can be no lease. Of a region that is gone the check of its file says it, unless that is somebody else's. */
async function lease(session: Session | undefined, place: Place): Promise<(() => void) | undefined> {
  const { region } = place;
  try {
    if (session !== undefined) return await session.lease(region);
    warn(region, "this client has no session");
  } catch (error) {
    if (!(isTensordError(error) && gone.includes(error.code))) warn(region, String(error));
    else if (isOrigin(place)) throw new Mismatch(place, "is no region any more", "gone");
  }
  return undefined;
}

function warn(region: string, why: string): void {
  process.emitWarning(
    `Region ${region} is mapped without a lease, so the server may count it as unused and end it: no lock can be taken of it, ` +
      "since another process write-locks its lease byte or the file is somebody else's, and no lease could be asked for " +
      `(${why}). What is mapped here stays.`,
    { type: "TensordWarning", code: "mapping-failed" },
  );
}
