/**
 * Tests that take a gibibyte or more have it one after another: whatever runs beside them, on this machine and as any
 * user, and in whatever language. What they hold is a name that the kernel takes back with the process.
 */

import { until } from "./server-wait.ts";

/** Abstract (unix(7)): of no file system. `room` in clients/python/tests/harness.py is the same. */
const name = "\0tensord-test-room";
const deadlineMs = 4 * 60_000;

/** Waits until no other test has the room. Dispose of it with `using`. */
export async function takeRoom(): Promise<Disposable> {
  const held = await until("no other test has a gibibyte", tryTake, deadlineMs);
  return { [Symbol.dispose]: () => held.stop(true) };
}

function tryTake() {
  try {
    return Bun.listen({ unix: name, socket: { data() {} } });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return undefined;
    throw error;
  }
}
