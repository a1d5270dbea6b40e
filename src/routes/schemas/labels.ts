/** The zod schemas of labels as requests bring them. */

import { z } from "@hono/zod-openapi";
import { limits } from "../../memory/limits.ts";
import { isPlainText } from "../../memory/naming.ts";
import { wantPlainText } from "./common.ts";
import { checkedBy } from "./plain-check.ts";

/** Checked by hand: zod drops `__proto__` in silence, and lists 800,000 mistakes. */
function labelsOf<Value>(isValue: (value: unknown) => boolean, valueSchema: { type: "string" | ["string", "null"] }) {
  const schema = z
    .custom<Record<string, Value>>(isObject, { message: "want an object", abort: true })
    .superRefine((labels, c) => {
      const entries = Object.entries(labels);
      if (entries.length > limits.labels)
        return c.addIssue({ code: "custom", message: `want at most ${limits.labels} labels` });
      for (const [key, value] of entries) {
        if (!isLabelKey(key))
          return c.addIssue({ code: "custom", message: `want keys of 1 to ${limits.labelKeyCharacters} characters` });
        if (!isValue(value)) {
          c.addIssue({
            code: "custom",
            path: [key],
            message: `want text of at most ${limits.labelValueCharacters} characters`,
          });
          return;
        }
      }
    });
  const isPlain = (labels: unknown) => {
    if (!isObject(labels)) return false;
    const entries = Object.entries(labels);
    return entries.length <= limits.labels && entries.every(([key, value]) => isLabelKey(key) && isValue(value));
  };
  return checkedBy(schema, isPlain).openapi({
    type: "object",
    additionalProperties: valueSchema,
    maxProperties: limits.labels,
    example: { job: "nightly" },
  });
}

function isObject(labels: unknown): labels is object {
  return typeof labels === "object" && labels !== null && !Array.isArray(labels);
}

function isLabelKey(key: string): boolean {
  return key !== "" && key.length <= limits.labelKeyCharacters && key !== "__proto__";
}

const isLabelValue = (value: unknown) => typeof value === "string" && value.length <= limits.labelValueCharacters;

export const Labels = labelsOf<string>(isLabelValue, { type: "string" });

/** What a client says of itself is text for people; a region's labels are data, and may hold anything. */
export const ClientLabels = labelsOf<string>(isLabelValue, { type: "string" }).superRefine((labels, c) => {
  for (const [key, value] of Object.entries(labels)) {
    if (isPlainText(key) && isPlainText(value)) continue;
    return c.addIssue({ code: "custom", path: isPlainText(key) ? [key] : [], message: wantPlainText });
  }
});

export const LabelsPatch = labelsOf<string | null>((value) => value === null || isLabelValue(value), {
  type: ["string", "null"],
});
