/** A connection to the broker of one's own, and why there is none. */

import { existsSync } from "node:fs";
import { TensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import type { WireObject } from "../http/wire.ts";
import { BrokerConnection, Lost } from "./broker-connection.ts";
import { type BrokerPath, findBrokerPath } from "./broker-path.ts";

/**
 * Connects where the broker should be, else where the server says that it is, and says hello.
 * @param known where it was before: then nobody is asked.
 * @throws TensordError `server-unavailable`, `wrong-namespace`, `access-denied`, `feature-unavailable` of a server that has none,
 *   `out-of-descriptors`
 */
export async function dialBroker(api: Api, hello: WireObject, known?: string | undefined): Promise<BrokerConnection> {
  const { endpoint } = api.transport;
  const members = { token: endpoint.token?.read(), ...hello };
  const place = known === undefined ? findBrokerPath(endpoint) : { path: known, origin: "as before" };
  let lost = new Lost("where it is was not said");
  try {
    if (place !== undefined) return new BrokerConnection(place.path, members);
  } catch (error) {
    if (!(error instanceof Lost)) throw error;
    lost = error;
  }
  // It was there, and comes back from a restart: also where its socket is gone for a moment.
  if (known !== undefined) throw nobodyAnswers(known, lost);
  const told = await askForPath(api).catch((error: unknown) => {
    if (error instanceof TensordError && error.code === "feature-unavailable") throw error;
    // The server is away, or tells nobody without a token: what was tried has to do.
    return undefined;
  });
  // Of a server elsewhere the path says nothing here.
  if (told === undefined || told === place?.path || (place !== undefined && !existsSync(told)))
    throw toUnreachable(place, told, lost);
  try {
    return new BrokerConnection(told, members);
  } catch (error) {
    if (!(error instanceof Lost)) throw error;
    throw toUnreachable({ path: told, origin: "the server's capabilities" }, told, error);
  }
}

/** Where the server has it. @throws TensordError `feature-unavailable` of a server that has none */
export async function askForPath(api: Api, signal?: AbortSignal | undefined): Promise<string> {
  const { broker } = await api.capabilities(signal);
  if (broker !== undefined && broker !== null) return broker.path;
  throw new TensordError("feature-unavailable", `The server on ${api.transport.endpoint.url} has no broker`, {
    hint: "its log says why: is it an older one, or the path of its socket too long (TENSORD_BROKER_SOCKET)?",
  });
}

/** Why nobody was reached at `place`, and what to do. @param serversPath as the server calls it, once it was asked */
export function toUnreachable(
  place: BrokerPath | undefined,
  serversPath: string | undefined,
  lost: Lost,
): TensordError {
  const { code } = lost;
  const servers = serversPath ?? "TENSORD_BROKER_SOCKET of the server, `broker.sock` beside its socket";
  const elsewhere =
    `mount the directory of the server's socket (${servers}) here as well, and set TENSORD_BROKER_SOCKET to its path ` +
    "here if that is another one";
  if (place === undefined) {
    const detail = "Where the broker's socket is here is not known, of a server that is reached by TCP";
    return new TensordError("wrong-namespace", detail, { hint: elsewhere, cause: lost });
  }
  const tried = `the broker's socket ${place.path} (${place.origin})`;
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new TensordError("wrong-namespace", `There is no socket at ${tried}: ${code}`, {
      hint: elsewhere,
      cause: lost,
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    const us = `uid ${process.geteuid?.()}, gid ${process.getegid?.()}`;
    return new TensordError("access-denied", `This process (${us}) may not connect to ${tried}: ${code}`, {
      hint: "run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)",
      cause: lost,
    });
  }
  return nobodyAnswers(tried, lost);
}

function nobodyAnswers(where: string, lost: Lost): TensordError {
  return new TensordError("server-unavailable", `Nobody answers on ${where}: ${lost.message}`, {
    hint: "is the server running?",
    cause: lost,
  });
}
