/** Where the command line writes: what a terminal would obey leaves as escapes, whoever it comes from. */

import { toPrintable } from "../../memory/naming.ts";

/** To standard output, as lines. Resolves once it is written: the process exits right after, and a pipe may be slow. */
export async function print(text: string): Promise<void> {
  await Bun.write(Bun.stdout, `${toPrintable(text)}\n`);
}

/** A word beside the output, to standard error. */
export function tell(text: string): void {
  process.stderr.write(`tensord: ${toPrintable(text)}\n`);
}

/** A failure, in a sentence, and what to do. */
export function tellFailure(message: string, hint: string | undefined): void {
  tell(message);
  if (hint !== undefined) process.stderr.write(`hint: ${toPrintable(hint)}\n`);
}
