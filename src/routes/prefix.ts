/**
 * A path prefix that a proxy takes off before it asks here, told by `X-Forwarded-Prefix`. Nothing is decided by it: whoever
 * sends the header gets it back in the document, and nobody else does.
 */

/** Segments of plain characters, none of them only dots. */
const pattern = /^((?:\/(?!\.+(?:\/|$))[\w.~-]+)+)\/?$/;

/** @returns `document` with the prefix for its server, relative to where it was read, as OpenAPI has it; itself without one. */
export function belowPrefix<Document extends object>(document: Document, header: string | undefined): Document {
  const [, prefix] = pattern.exec(header ?? "") ?? [];
  if (prefix === undefined) return document;
  return { ...document, servers: [{ url: prefix, description: "The proxy that this came through." }] };
}
