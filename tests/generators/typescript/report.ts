/** What the drivers in TypeScript share: a step is a function, a line tells how it went, and the next one follows in any case. */

/** Prints `ok NAME [what was read]`, or `FAIL NAME: why` if it throws. */
export async function step(name: string, read: () => Promise<unknown>): Promise<void> {
  try {
    console.log(`ok ${name} ${(await read()) ?? ""}`);
  } catch (error) {
    console.log(`FAIL ${name}: ${String(error).replaceAll(/\s+/g, " ")}`);
  }
}

/** @throws Error unless what was read is what is right. */
export function want(what: string, read: unknown, right: unknown): void {
  if (JSON.stringify(read) !== JSON.stringify(right))
    throw new Error(`${what} is ${JSON.stringify(read)}, want ${JSON.stringify(right)}`);
}

/** The server's URL, that of the server of tomorrow, and the large region's size. */
export const [url = "", tomorrowUrl = "", largeBytes = 0] = process.argv
  .slice(2)
  .map((argument, index) => (index === 2 ? Number(argument) : argument)) as [string?, string?, number?];
