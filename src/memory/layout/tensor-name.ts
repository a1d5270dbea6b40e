/** What a tensor may be called. Uniqueness is the layout's business. */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";

/** @throws TensordError `validation-failed` on a name that the format, a URL or another language could not carry. */
export function checkTensorName(name: string): void {
  if (name === "") throw refused(name, "it is empty", "at least one character");
  if (name === "__metadata__") throw refused(name, "the format keeps that word for itself", "another");
  if (name.includes("\0")) throw refused(name, "it has a NUL", "text without");
  if (!name.isWellFormed()) throw refused(name, "it has half a surrogate pair", "Unicode text");
  // Not TextEncoder: it would encode a name of any length to count it, and is far slower in Bun 1.4.5.
  if (Buffer.byteLength(name) > limits.tensorNameBytes) {
    throw refused(name, "it is too long", `at most ${limits.tensorNameBytes} bytes of UTF-8`);
  }
}

function refused(name: string, state: string, want: string): TensordError {
  const hint = "Give the tensor another name.";
  return new TensordError("validation-failed", `Cannot name tensor ${quote(name)}: ${state}, want ${want}`, { hint });
}
