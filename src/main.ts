/** The command line's entry: runs it, and turns what it throws into a sentence and an exit status. */

import { TensordError } from "./memory/error.ts";

try {
  // The fd holder is to be small, and a copier to start fast, so they load nothing of what commands need.
  if (process.argv[2] === "fd-holder") {
    const { runFdHolder } = await import("./server/cli/fd-holder.ts");
    runFdHolder(process.argv.slice(3));
  } else if (process.argv[2] === "device-copier") {
    const { runDeviceCopier } = await import("./server/cli/device-copier.ts");
    runDeviceCopier(process.argv.slice(3));
  } else {
    const { createProgram } = await import("./server/cli/program.ts");
    await createProgram().parseAsync(process.argv);
  }
  // What the server left behind (an idle Worker, a timer) must not keep a finished command alive.
  process.exit(0);
} catch (error) {
  for (const failure of error instanceof AggregateError ? error.errors : [error]) await report(failure);
  process.exit(1);
}

async function report(error: unknown): Promise<void> {
  if (!(error instanceof TensordError)) {
    console.error(error);
    return;
  }
  const { tellFailure } = await import("./server/cli/output.ts");
  tellFailure(error.message, error.facts.hint);
}
