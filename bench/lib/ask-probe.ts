/** Asks the probe in a server for what it has seen since it was asked last. */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Held } from "./loop-probe.ts";
import type { BenchServer } from "./server.ts";

export type { Held } from "./loop-probe.ts";

/** What a server is started with, to be asked. */
export const preloadProbe = join(import.meta.dir, "loop-probe.ts");

/** @param signal SIGWINCH: for how long a collection holds the loop that it is told to make now. */
export async function askProbe(server: BenchServer, signal: "SIGUSR2" | "SIGWINCH" = "SIGUSR2"): Promise<Held> {
  rmSync(server.probePath, { force: true });
  process.kill(server.pid, signal);
  while (!existsSync(server.probePath)) await Bun.sleep(1);
  return JSON.parse(readFileSync(server.probePath, "utf8")) as Held;
}
