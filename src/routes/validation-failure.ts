/** What a schema has against a request becomes one failure, which shows the client a bounded part of it. */

import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";

/** @param count of all, if these are only the first of them. */
export function toValidationFailure(
  issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[],
  count = issues.length,
): TensordError {
  const shown = issues.slice(0, limits.validationIssues).map(({ path, message }) => ({
    path: cut(path.map((part) => cut(String(part))).join(".")),
    message: cut(message),
  }));
  const [first] = shown;
  const where = first === undefined || first.path === "" ? "" : ` at ${first.path}`;
  const others = count > 1 ? `, and ${count - 1} more` : "";
  return new TensordError("validation-failed", `Cannot accept the request${where}: ${first?.message}${others}`, {
    issues: shown,
    hint: "See the operation's schema in /openapi.json.",
  });
}

/** What a client sent comes back in part. */
function cut(text: string): string {
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}
