/** Why the broker ends a connection, or sends no descriptor, as rows of the one table of failures. */

import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import type { Ending } from "./poll-protocol.ts";

/** What a connection is told last. */
export function toFailure({ kind, why }: Exclude<Ending, { kind: "peer" }>): TensordError {
  switch (kind) {
    case "malformed":
      return new TensordError("malformed-body", `Cannot read the message: ${why}`, {
        hint: "Send one JSON object a message, as docs/protocol.md, The broker, has it. The connection is closed.",
      });
    case "crowded":
      return new TensordError("too-many-requests", `Cannot take the connection: ${why}`, {
        hint: "Use one connection in a process, and close those that are no longer needed.",
      });
    case "silent":
    case "stalled":
      return new TensordError("deadline-exceeded", `Cannot keep the connection: ${why}`, {
        hint: "Connect when there is something to ask, and read each answer.",
      });
  }
}

export function tooLong(): TensordError {
  return new TensordError(
    "payload-too-large",
    `Cannot send the answer: it is longer than the ${limits.brokerFrameBytes} bytes of a message`,
    { hint: "Get the region over HTTP, or give it fewer labels." },
  );
}

export function unreadHere(): TensordError {
  return new TensordError(
    "too-many-requests",
    `Cannot send more descriptors: ${limits.brokerUnreadDescriptors} were sent over this connection and not read`,
    { hint: "Read the answers that came, then ask again." },
  );
}

export function unreadElsewhere(): TensordError {
  return new TensordError(
    "too-many-requests",
    "Cannot send a descriptor: too many are on their way that nobody has read yet",
    { hint: "Ask again in a moment." },
  );
}
