/** What SQLite's failures mean, and which failure of the table each becomes. */

import { SQLiteError } from "bun:sqlite";
import { TensordError } from "../error.ts";

export function isFull(error: unknown): boolean {
  return (
    error instanceof SQLiteError && (error.code === "SQLITE_FULL" || error.code?.startsWith("SQLITE_IOERR") === true)
  );
}

/** Whether `error` says that the journal could not be written because the file system is full. */
export function isOutOfMemory(error: unknown): boolean {
  return error instanceof TensordError && error.code === "out-of-shared-memory";
}

/** What SQLite can read and we cannot have written. */
export class JournalDamage extends Error {
  override readonly name = "JournalDamage";
}

/**
 * Whether `error`, met while a journal is opened and read, says that it is damaged. Our statements are constants, so one
 * that SQLite calls wrong there means that the tables are not ours.
 */
export function isDamage(error: unknown): boolean {
  if (error instanceof JournalDamage) return true;
  return error instanceof SQLiteError && /^SQLITE_(CORRUPT|NOTADB|ERROR)/.test(error.code ?? "");
}

export function translate(error: unknown): unknown {
  if (isFull(error)) {
    return new TensordError(
      "out-of-shared-memory",
      "Cannot write to the journal: the shared memory file system has no free page",
      { errno: "ENOSPC", hint: "Remove foreign files from it, delete regions, or mount it larger." },
      { cause: error },
    );
  }
  if (!(error instanceof SQLiteError)) return error;
  if (error.code === "SQLITE_CONSTRAINT_UNIQUE") {
    return new TensordError(
      "name-taken",
      "Cannot take the name: the row of a region that is being deleted still holds it",
      { hint: "Ask again in a moment." },
      { cause: error },
    );
  }
  return new TensordError(
    "io-error",
    `Cannot use the journal: ${error.message}`,
    { hint: "See the server's log." },
    { cause: error },
  );
}
