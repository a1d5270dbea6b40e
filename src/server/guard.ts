/**
 * Whom TCP lets in: a request whose Host and Origin name this server. A web page that reaches us by DNS rebinding names
 * its own host, and one that posts across origins its own origin.
 */

import { TensordError } from "../memory/error.ts";

const loopbackHosts = ["localhost", "127.0.0.1", "[::1]"];

/** @returns a function that throws TensordError `forbidden` for a request that is not meant for `host`:`port`. */
export function createHostGuard(host: string, port: number): (headers: Headers) => void {
  const names = new Set([...loopbackHosts, host.includes(":") ? `[${host}]` : host]);
  const hosts = new Set([...names].map((name) => `${name}:${port}`));
  const origins = new Set([...hosts].map((name) => `http://${name}`));
  if (port === 80) {
    for (const name of names) hosts.add(name).add(`${name}:80`);
    for (const name of names) origins.add(`http://${name}`);
  }
  return function guardHost(headers) {
    const asked = headers.get("host")?.toLowerCase() ?? "";
    if (!hosts.has(asked)) throw refused("Host", asked, hosts);
    const origin = headers.get("origin");
    if (origin !== null && !origins.has(origin.toLowerCase())) throw refused("Origin", origin, origins);
  };
}

function refused(header: string, value: string, allowed: ReadonlySet<string>): TensordError {
  const want = [...allowed].join(", ");
  return new TensordError(
    "forbidden",
    `Cannot answer: ${header} is ${JSON.stringify(value.slice(0, 100))}, want one of ${want}`,
    {
      hint: "Call the server by a loopback name and its own port, or use the Unix socket. Web pages may not call it.",
    },
  );
}
