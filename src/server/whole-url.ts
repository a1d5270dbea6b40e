/** Where a request goes, whole. The runtime knows only its target where no Host can be read: HTTP/1.0 need not send one. */

/** A request's URL, with a host in any case: `localhost` where it named none. */
export function toWholeUrl({ url }: Request): string {
  return url.startsWith("/") ? `http://localhost${url}` : url;
}
