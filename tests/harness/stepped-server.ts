/**
 * A server that kills itself with SIGKILL after a chosen step: `TEST_KILL_STEP=create.kept` and, for the Nth time it
 * gets there, `TEST_KILL_COUNT=N`. The production entry has no such hook; everything else is the real composition.
 */

import { type Step, steps } from "../../src/memory/state/steps.ts";
import { holderCommand } from "../../src/memory/storage/fd-holder/protocol.ts";
import { runFdHolder } from "../../src/server/cli/fd-holder.ts";
import { parseConfig } from "../../src/server/config.ts";
import { startServer } from "../../src/server/serve.ts";

// Its executable is its fd holder's as well, as in `src/main.ts`.
if (process.argv[2] === holderCommand) {
  runFdHolder(process.argv.slice(3));
  process.exit(0);
}

const { TEST_KILL_STEP: chosen, TEST_KILL_COUNT: count = "1", ...environment } = process.env;
if (chosen !== undefined && !(steps as readonly string[]).includes(chosen)) throw new Error(`no such step: ${chosen}`);

let left = Number(count);

function onStep(step: Step): void {
  if (step !== chosen) return;
  left -= 1;
  if (left === 0) process.kill(process.pid, "SIGKILL");
}

const server = await startServer(parseConfig(environment), onStep);
process.once("SIGTERM", () => void server.stop().then(() => process.exit(0)));
