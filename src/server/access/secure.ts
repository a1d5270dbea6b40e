/** Headers that every answer has: what a browser must not make of it, whoever brought it there. */

/**
 * No type but the one that is said, no frame around it, no other site's page that takes it in, no address passed on. What has a
 * policy of its own, as the reference page has, keeps it.
 */
export function secure(response: Response): Response {
  const { headers } = response;
  headers.set("x-content-type-options", "nosniff");
  headers.set("cross-origin-resource-policy", "same-origin");
  headers.set("referrer-policy", "no-referrer");
  if (!headers.has("content-security-policy"))
    headers.set("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
  return response;
}
