/**
 * The examples of a document: found there, and run. Each is to stand by itself; one that waits for another's region is
 * started before whoever makes it.
 */

export interface Example {
  readonly language: string;
  readonly text: string;
}

/** The code blocks of some languages, in the order in which they stand. */
export function findExamples(document: string, ...languages: readonly string[]): Example[] {
  return [...document.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .map(([, language = "", text = ""]) => ({ language, text }))
    .filter(({ language }) => languages.includes(language));
}

/** Of an example that waits until a region is there: the region's name. */
function awaitedName({ text }: Example): string | undefined {
  return /\battach\("([\w-]+)", (?:timeout=|\{ timeoutMs:)/.exec(text)?.[1];
}

function makes({ text }: Example, name: string): boolean {
  return new RegExp(`\\bcreate\\(\\s*"${name}"`).test(text);
}

/**
 * Runs all of them in the order given. Backwards and then forwards, each has been before and after each other one.
 * @throws Error if one waits for what none makes, or whatever `run` throws
 */
export async function runExamples<Result>(
  examples: readonly Example[],
  run: (example: Example) => Promise<Result>,
): Promise<Map<Example, Result>> {
  const results = new Map<Example, Result>();
  const waiting = new Set(examples.filter((example) => awaitedName(example) !== undefined));
  for (const example of examples.filter((each) => !waiting.has(each))) {
    const readers = [...waiting].filter((reader) => makes(example, awaitedName(reader) ?? ""));
    for (const reader of readers) waiting.delete(reader);
    const running = [...readers, example].map(async (each) => results.set(each, await run(each)));
    // None is left running when one fails.
    await Promise.allSettled(running);
    await Promise.all(running);
  }
  if (waiting.size > 0) throw new Error(`nobody makes what ${[...waiting].map(awaitedName)} waits for`);
  return results;
}
