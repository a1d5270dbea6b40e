/**
 * A server that kills itself, or the process `pid`, with SIGKILL after a step that a test chooses while it runs: the file `TEST_KILL_FILE`
 * names the step and, for the Nth time it gets there from then on, says `count`. `TEST_DRIVER_ANSWER_MS` is how long it waits for a device's
 * driver, or `TEST_GIVE_UP_FILE` the file by which a test says that this is over; `TEST_DEVICE_NODE` is the node of every device, and
 * `TEST_KERNEL_DRIVER` where the kernel's driver has its files. Its reserve is filled whatever else the machine does. The production entry
 * has no such hook; everything else is the real composition.
 */

import { existsSync } from "node:fs";
import { copierCommand } from "../../src/cuda/copier-job.ts";
import type { DeviceOptions } from "../../src/cuda/device-host.ts";
import { readTextIfThere } from "../../src/memory/os/files.ts";
import type { Step } from "../../src/memory/state/steps.ts";
import { holderCommand } from "../../src/memory/storage/fd-holder/protocol.ts";
import { runDeviceCopier } from "../../src/server/cli/device-copier.ts";
import { runFdHolder } from "../../src/server/cli/fd-holder.ts";
import { parseConfig } from "../../src/server/config.ts";
import { startServer } from "../../src/server/serve.ts";

// Its executable is its fd holder's and its copiers' as well, as in `src/main.ts`.
if (process.argv[2] === holderCommand) {
  runFdHolder(process.argv.slice(3));
  process.exit(0);
}

if (process.argv[2] === copierCommand) {
  runDeviceCopier(process.argv.slice(3));
  process.exit(0);
}

const { TEST_KILL_FILE: file = "", ...others } = process.env;
const {
  TEST_DRIVER_ANSWER_MS: answerMs,
  TEST_DEVICE_NODE: node,
  TEST_KERNEL_DRIVER: kernelFolder,
  TEST_GIVE_UP_FILE: giveUpFile,
  ...environment
} = others;

/** What was asked for last, as the file has it. */
let asked: string | undefined;
let left = 0;

function onStep(step: Step): void {
  const text = readTextIfThere(file);
  if (text === undefined) return;
  const chosen = JSON.parse(text) as { step: Step; count?: number; pid?: number };
  if (text !== asked) left = chosen.count ?? 1;
  asked = text;
  if (step !== chosen.step) return;
  left -= 1;
  if (left === 0) process.kill(chosen.pid ?? process.pid, "SIGKILL");
}

/** Looks for the file by which a test says that the time is over. */
function askAgain(path: string, giveUp: () => void): Disposable {
  const timer = setInterval(() => existsSync(path) && giveUp(), 2);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

const deviceOptions: DeviceOptions = {
  ...(answerMs === undefined ? {} : { answerMs: Number(answerMs) }),
  ...(node === undefined ? {} : { nodeOf: () => node }),
  kernelFolder,
  ...(giveUpFile === undefined ? {} : { patience: (giveUp) => askAgain(giveUpFile, giveUp) }),
};
const reserveOptions = { hugeAfterMs: 0, nice: 0, readPressure: () => ({ meminfo: undefined, pressure: undefined }) };
const server = await startServer(parseConfig(environment), onStep, deviceOptions, reserveOptions);
process.once("SIGTERM", () => void server.stop().then(() => process.exit(0)));
