/**
 * What runs the server under test: the executable that people run, which `npm test` builds for a whole run, or the sources,
 * where somebody runs one file. A start of the executable takes half of the processor time.
 */

/** The beginning of a `tensord` command line, to be run in the repository's root. */
export const tensord: readonly string[] =
  process.env.TEST_EXECUTABLE === undefined ? [process.execPath, "src/main.ts"] : [process.env.TEST_EXECUTABLE];

/** What a run sets for every process of Bun, so that it takes less of the processor (`scripts/lib/test-parts.mjs`). */
export const runtimeSettings: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(process.env).flatMap(([name, value = ""]) => (name.startsWith("BUN_JSC_") ? [[name, value]] : [])),
);

/** The server that kills itself after a step. */
export const steppedServer: readonly string[] =
  process.env.TEST_STEPPED_EXECUTABLE === undefined
    ? [process.execPath, "tests/harness/stepped-server.ts"]
    : [process.env.TEST_STEPPED_EXECUTABLE];
