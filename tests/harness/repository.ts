/** The repository's own files, for tests that judge them. */

import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dir, "../..");

export interface TextFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

/** Tracked files and new ones that nothing ignores. A file that git still lists but is gone is none of ours. */
export const paths = listFiles();

function listFiles(): string[] {
  // The clone may belong to another user than the one who runs the tests, as in containers.
  const command = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"];
  const { success, stdout, stderr } = Bun.spawnSync(command, { cwd: root });
  if (!success) throw new Error(`Cannot list the repository's files: git says: ${stderr.toString().trim()}`);
  const listed = stdout.toString().split("\0").filter(Boolean);
  return listed.filter((path) => existsSync(join(root, path)) && statSync(join(root, path)).isFile());
}

export const read = (path: string): string => readFileSync(join(root, path), "utf8");

/** Reads what is text: a file with a NUL is not. */
export function readText(path: string): TextFile[] {
  const bytes = readFileSync(join(root, path));
  if (bytes.includes(0)) return [];
  const text = bytes.toString("utf8");
  return [{ path, text, lines: text.split("\n") }];
}
