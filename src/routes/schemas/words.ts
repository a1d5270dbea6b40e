/**
 * Words in answers that may grow: a kind, a format, a code, a reason. They are strings with documented values, so that what
 * was generated from today's document reads what a later server says. What a request may say is closed, and so an enum of
 * its own in `requests.ts`. Of answers only those words are enums whose meaning would be another protocol: states, roles,
 * and what says how to read the rest.
 */

import { z } from "@hono/zod-openapi";
import { type FailureCode as FailureWord, failures } from "../../memory/error.ts";
import { storageEnds } from "../../memory/host/capabilities.ts";
import { checksumAlgorithm } from "../../memory/layout/checksum.ts";
import { dtypes } from "../../memory/layout/dtype.ts";
import { storageKinds } from "../../memory/storage/storage.ts";

/** `values` are those of this version, every one; a test holds answers against them. */
export function openWord(description: string, values: readonly string[]) {
  return z.string().openapi(toMetadata(description, values));
}

export function openWordOrNull(description: string, values: readonly string[]) {
  return z.string().nullable().openapi(toMetadata(description, values));
}

function toMetadata(description: string, values: readonly string[]) {
  const known = values.map((value) => `\`${value}\``).join(", ");
  return { description: `${description} Known: ${known}. A later server may say others.`, examples: [...values] };
}

export const StorageKind = openWord("What it is made of.", storageKinds);

const ends =
  "`file_system`: the tmpfs of the shared directory. `container`: everything that runs beside the server, or the time that its fd " +
  "holder waits for one (TENSORD_HOLDER_TTL_MS). `server`: its process.";

export const StorageEnd = openWord(
  `What takes the memory along, when nothing else has ended the region. ${ends}`,
  storageEnds,
);

export const StorageEndOrNull = openWordOrNull(
  `What takes its regions along at last; null where it is not available. ${ends}`,
  storageEnds,
);

export const StorageFormat = openWord(
  "How its bytes lie: `safetensors` is a valid safetensors file, `raw` is data from the first byte on.",
  ["safetensors", "raw"],
);

export const DtypeWord = openWord("The type of an element, as safetensors names it.", dtypes);

export const ChecksumAlgorithm = openWord("docs/protocol.md specifies it.", [checksumAlgorithm]);

/** Every code of this version, for those who want them typed. */
export const FailureCode = z.enum(Object.keys(failures) as [FailureWord, ...FailureWord[]]).openapi("FailureCode", {
  description: "The codes that a Problem of this version has. `code` itself is open: a later server may have others.",
});

export const ProblemCode = openWord("What failed, in a word for programs.", Object.keys(failures));
