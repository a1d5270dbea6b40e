/** The zod schemas of what stands in requests and in answers: numbers, names, ids, shapes. */

import { z } from "@hono/zod-openapi";
import { limits } from "../../memory/limits.ts";
import { namePattern, versionPattern } from "../../memory/naming.ts";
import { checkedBy, toPlainCheck } from "./plain-check.ts";

export const byteCount = z.int().min(0).max(limits.regionBytes);

/** Terminals obey control characters, and half a surrogate pair is no text in most languages. */
export const wantPlainText = "want text without control characters and half surrogate pairs";

export const time = z.string().openapi({ format: "date-time", example: "2026-11-21T12:00:00.000Z" });

/** Linux goes no further than 2^22. */
export const Pid = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);

export const Name = z.string().regex(namePattern, "want 1 to 128 of A-Z a-z 0-9 . _ - and no leading dot");

export const ModelName = Name.openapi({
  description: "A model's name; write org/name as org--name.",
  example: "llama-7b",
});

export const RegionName = Name.openapi({ description: "A region's name, unique in its model.", example: "weights" });

export const Version = z
  .string()
  .regex(versionPattern, "want at most 128 of A-Z a-z 0-9 . _ -")
  .openapi({ description: "Which build of the name; versions stand side by side. Default: empty." });

export const VersionParameter = z.string().regex(versionPattern).optional().openapi({
  description: "This version. Without one the newest that is sealed, or, where none is, the newest.",
});

/** What an id looks like, for who writes one. One that does not is no mistake in a request: nothing has it. */
export function idPattern(prefix: "reg_" | "ses_" | "lea_" | "clm_" | "op_" | "vmm_") {
  return { pattern: `^${prefix}[a-z2-7]{26}$`, example: `${prefix}abcdefghijklmnopqrstuvwxyz` };
}

/** Of the list of regions: the key of the last item. */
export const cursorPattern = { pattern: "^[0-9]{1,16}$" };

export const RegionIdParameter = z.string().max(64).openapi(idPattern("reg_"));

export const SessionId = z.string().max(64).openapi(idPattern("ses_"));

export const TensorName = z.string().min(1).max(limits.tensorNameBytes).openapi({ example: "w" });

const isDimension = toPlainCheck(byteCount);

/** Checked by hand, and the first mistake only: zod lists every one, and 640,000 of them pass its stack. */
export const Shape = checkedBy(
  z
    .array(z.custom<number>(() => true))
    .max(limits.tensorDimensions)
    .superRefine((shape, c) => {
      const at = shape.findIndex((dimension) => !isDimension(dimension));
      if (at !== -1)
        c.addIssue({ code: "custom", path: [at], message: `want a whole number from 0 to ${limits.regionBytes}` });
    }),
  (shape) => Array.isArray(shape) && shape.length <= limits.tensorDimensions && shape.every(isDimension),
).openapi({
  description: "Elements in each dimension, outermost first; [] is a scalar.",
  example: [1024, 1024],
  type: "array",
  maxItems: limits.tensorDimensions,
  items: { type: "integer", minimum: 0, maximum: limits.regionBytes },
});

export const createdBy = z.string().nullable().openapi({
  description: "Whose it is: the name of a token; null where nobody was asked for one.",
  example: "trainer",
});

export const nextCursor = z.string().nullable().openapi({ description: "For the next page; null at the end." });
