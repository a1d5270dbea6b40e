/** The headers of our own web pages and what they load: their policy lets a browser load nothing but what it names. */

/** @param sources directives of the page's own, as `script-src 'self'`. */
export function toPageHeaders(...sources: readonly string[]) {
  const policy = ["default-src 'none'", ...sources, "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"];
  return {
    "content-security-policy": policy.join("; "),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
  };
}
