/** Bodies are taken as they come: nothing here decodes one, and what was encoded would be stored as if it were the bytes meant. */

import { TensordError } from "../memory/error.ts";

/** @throws TensordError `unsupported-media-type` for a `Content-Encoding` that is any. */
export function refuseEncoded(header: string | undefined): void {
  const isPlain = (header ?? "").split(",").every((coding) => /^\s*(identity)?\s*$/i.test(coding));
  if (isPlain) return;
  throw new TensordError(
    "unsupported-media-type",
    `Cannot read the body: Content-Encoding is ${JSON.stringify(header?.slice(0, 80))}, want none`,
    { accept_encoding: "identity", hint: "Send the bytes as they are, without Content-Encoding." },
  );
}
