/**
 * Whom TCP lets in: a request whose Host and Origin name this server. A web page that reaches us by DNS rebinding names
 * its own host, and one that posts across origins its own origin. Loopback names cannot be rebound, whatever the port:
 * what forwards another port to ours passes them on. A request without a Host is no browser's.
 */

import { isIP } from "node:net";
import { TensordError } from "../memory/error.ts";

const loopbackNames = ["localhost", "127.0.0.1", "[::1]"];

/**
 * @param allowed further hosts in lower case, each on every port, or with the one that it is allowed on.
 * @returns a function that throws TensordError `forbidden` for a request that is not meant for `host`:`port`.
 */
export function createHostGuard(
  host: string,
  port: number,
  allowed: readonly string[] = [],
): (headers: Headers) => void {
  const names = new Set([...loopbackNames, host.includes(":") ? `[${host}]` : host]);
  const isEverywhere = host === "0.0.0.0" || host === "::";
  const others = new Set(allowed);
  const origins = new Set([...names].map((name) => `http://${name}:${port}`));
  if (port === 80) for (const name of names) origins.add(`http://${name}`);

  function isAllowed(authority: string): boolean {
    return others.has(authority) || others.has(toName(authority) ?? "");
  }

  /** Where we listen on every address: an address is no name that could be rebound. Of an Origin it says nothing. */
  function isAddress(authority: string): boolean {
    return isEverywhere && isIP((toName(authority) ?? "").replace(/^\[(.*)\]$/, "$1")) !== 0;
  }

  return function guardHost(headers) {
    const asked = headers.get("host")?.toLowerCase();
    if (asked !== undefined && !names.has(toName(asked) ?? "") && !isAllowed(asked) && !isAddress(asked)) {
      throw refused("Host", asked, [...names, "or a host that the operator allows"]);
    }
    const origin = headers.get("origin")?.toLowerCase();
    if (origin === undefined || origins.has(origin)) return;
    const authority = /^https?:\/\/(.*)$/.exec(origin)?.[1];
    // A page that came from where it asks now: through what forwards to us, which may speak TLS to it.
    if (authority !== undefined && (authority === asked || isAllowed(authority))) return;
    throw refused("Origin", origin, [...origins, "or the origin that Host names"]);
  };
}

/** The host of `host` or `host:port`, or undefined of what is neither. */
function toName(authority: string): string | undefined {
  return /^(\[[0-9a-f:.]+\]|[^\s:[\]@/,]+)(?::(?:0|[1-9]\d{0,4}))?$/.exec(authority)?.[1];
}

function refused(header: string, value: string, wanted: readonly string[]): TensordError {
  return new TensordError(
    "forbidden",
    `Cannot answer: ${header} is ${JSON.stringify(value.slice(0, 100))}, want ${wanted.join(", ")}`,
    {
      hint:
        "Call the server by a loopback name, or use the Unix socket. A proxy's name, and the pages that it serves, are " +
        "let in by TENSORD_ALLOWED_HOSTS.",
    },
  );
}
