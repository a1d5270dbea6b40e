/** The command line's entry: runs it, and turns what it throws into a sentence and an exit status. */

import { TensordError } from "./memory/error.ts";
import { tellFailure } from "./server/cli/output.ts";
import { createProgram } from "./server/cli/program.ts";

try {
  await createProgram().parseAsync(process.argv);
  // What the server left behind (an idle Worker, a timer) must not keep a finished command alive.
  process.exit(0);
} catch (error) {
  for (const failure of error instanceof AggregateError ? error.errors : [error]) report(failure);
  process.exit(1);
}

function report(error: unknown): void {
  if (!(error instanceof TensordError)) {
    console.error(error);
    return;
  }
  tellFailure(error.message, error.facts.hint);
}
