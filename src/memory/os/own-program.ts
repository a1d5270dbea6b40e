/** How this program runs itself once more, for a process of its own beside the server. */

/**
 * The beginning of its command line. The executable is the whole program; the sources have Bun for it, which takes no settings from
 * where it runs.
 */
export function ownProgram(): string[] {
  const entry = new URL("../../main.ts", import.meta.url).pathname;
  const isExecutable = import.meta.path.startsWith("/$bunfs/");
  return isExecutable
    ? [process.execPath]
    : [process.execPath, "--no-env-file", "--no-install", "--smol", "--config=/dev/null", entry];
}
