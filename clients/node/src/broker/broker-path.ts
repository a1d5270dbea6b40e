/** Where the broker is, as far as that is known without asking the server (docs/protocol.md, "The broker"). */

import type { Endpoint } from "../http/endpoint.ts";

/** A socket that is tried, and what to call the reason. */
export interface BrokerPath {
  readonly path: string;
  readonly origin: string;
}

/** `TENSORD_BROKER_SOCKET`, else beside the server's Unix socket; undefined of a server that is known by TCP alone. */
export function findBrokerPath(
  endpoint: Endpoint,
  env: Readonly<Record<string, string | undefined>> = process.env,
): BrokerPath | undefined {
  const given = (env.TENSORD_BROKER_SOCKET ?? "").trim();
  if (given !== "") return { path: given, origin: "TENSORD_BROKER_SOCKET" };
  if (!("path" in endpoint)) return undefined;
  return { path: besideSocket(endpoint.path), origin: `the place beside ${endpoint.path}` };
}

/** `http.sock` becomes `broker.sock`; any other name has `.broker` behind it. */
export function besideSocket(path: string): string {
  return path.endsWith("/http.sock") ? path.replace(/http\.sock$/, "broker.sock") : `${path}.broker`;
}
