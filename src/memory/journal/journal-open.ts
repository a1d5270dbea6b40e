/** Opens the database with everything in it, or a new one in the place of one that is damaged. */

import { Database } from "bun:sqlite";
import { renameSync } from "node:fs";
import type { TensorFiles } from "../storage/tensor-files.ts";
import type { Ballast } from "./ballast.ts";
import { type JournalContent, readContent } from "./journal-content.ts";
import { isDamage, isFull, translate } from "./journal-failure.ts";
import { migrate } from "./journal-schema.ts";

export interface OpenDatabase {
  readonly database: Database;
  readonly content: JournalContent;
  /** What was wrong with the one that was set aside, and its name; undefined if none was. */
  readonly damage?: { readonly cause: unknown; readonly setAsideAs: string };
}

/** @throws TensordError if the file system is full, or the journal cannot be used for another reason than damage. */
export function openDatabase(path: string, ballast: Ballast, files: TensorFiles): OpenDatabase {
  try {
    return openWithBallast(path, ballast, files);
  } catch (cause) {
    if (!isDamage(cause)) throw translate(cause);
    const damaged = `${path}.damaged-${Date.now()}`;
    // Its log belongs to the damaged database and must not be replayed into a new one.
    for (const suffix of ["", "-wal"]) renameIfThere(path + suffix, damaged + suffix);
    const setAsideAs = damaged.slice(damaged.lastIndexOf("/") + 1);
    try {
      return { ...openWithBallast(path, ballast, files), damage: { cause, setAsideAs } };
    } catch (error) {
      throw translate(error);
    }
  }
}

/** Without a free page it takes the ballast's: a journal that cannot be opened cannot free any. */
function openWithBallast(path: string, ballast: Ballast, files: TensorFiles): OpenDatabase {
  for (;;) {
    try {
      return tryOpen(path, ballast, files);
    } catch (error) {
      if (!isFull(error) || !ballast.giveUp()) throw error;
    }
  }
}

function tryOpen(path: string, ballast: Ballast, files: TensorFiles): OpenDatabase {
  const database = new Database(path, { create: true, readwrite: true, strict: true });
  try {
    // The directory's lock lets one server in, so SQLite need not share; the kernel keeps the pages when we die, so it
    // need not sync. Temporary tables in files would lie outside the instance's directory.
    for (const pragma of [
      "locking_mode = EXCLUSIVE",
      "journal_mode = WAL",
      "synchronous = OFF",
      "temp_store = MEMORY",
      "wal_autocheckpoint = 256",
    ]) {
      database.run(`PRAGMA ${pragma}`);
    }
    migrate(database);
    const content = readContent(database, files);
    ballast.restore();
    return { database, content };
  } catch (error) {
    database.close();
    throw error;
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
