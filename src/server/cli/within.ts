/** A deadline for what the command line waits for. */

import { TensordError } from "../../memory/error.ts";

/** `answer`, if it comes in time. What it came from goes on; the command that waited ends. @throws TensordError `io-error`. */
export async function within<Value>(deadlineMs: number, answer: Promise<Value>): Promise<Value> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(
      new TensordError("io-error", `Cannot wait any longer: the server has not answered within ${deadlineMs} ms`, {
        hint: "See its log: it may be stopped or overloaded.",
      }),
    );
  }, deadlineMs);
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
