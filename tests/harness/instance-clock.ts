/** A server whose clock a test moves on: for what only happens to regions that nobody has asked for in a while. */

import { join } from "node:path";
import { root } from "./instance-needs.ts";
import type { TestServer } from "./server.ts";

/** Settings of such a server. */
export const leapingClock = { BUN_OPTIONS: `--preload=${join(root, "tests/harness/leaping-clock.ts")}` };

/** The server's clock leaps a minute, soon. A server that is gone has none. */
export function leap(server: TestServer): void {
  try {
    server.signal("SIGUSR2");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH" && server.isRunning) throw error;
  }
}
