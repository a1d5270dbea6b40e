/** Where the server is: from an argument, the environment, or the instance's socket. It connects to nothing. */

import { TensordError } from "../errors.ts";

/** sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)). */
const maxSocketPathBytes = 107;

/** One address: `path` of a Unix socket, or `host` and `port`. `origin` says where it was found. */
export type Endpoint =
  | { readonly origin: string; readonly url: string; readonly path: string }
  | { readonly origin: string; readonly url: string; readonly host: string; readonly port: number };

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The address to use: `url`, else `TENSORD_URL`, else `<TENSORD_SHM_DIR>/tensord.<TENSORD_INSTANCE>/http.sock`.
 * @throws TensordError `validation-failed` if it is none.
 */
export function findEndpoint(url?: string, env: Environment = process.env): Endpoint {
  if (url !== undefined) return parseUrl(url, "the argument url");
  if (env.TENSORD_URL) return parseUrl(env.TENSORD_URL, "TENSORD_URL");
  const instance = env.TENSORD_INSTANCE || "default";
  const directory = env.TENSORD_SHM_DIR || "/dev/shm";
  if (!/^[a-z0-9-]{1,32}$/.test(instance)) {
    throw new TensordError(
      "validation-failed",
      `Cannot use TENSORD_INSTANCE "${instance}": want 1 to 32 of a-z, 0-9 and -`,
    );
  }
  const origin = `TENSORD_URL is not set, so the socket of instance "${instance}" in ${directory} was tried`;
  return unixEndpoint(`${directory.replace(/\/+$/, "")}/tensord.${instance}/http.sock`, origin);
}

function parseUrl(url: string, from: string): Endpoint {
  const origin = `it comes from ${from}`;
  // Taken apart by hand: the URL parser would fold and escape what is a path of the file system.
  const path = /^unix:\/\/(\/[^?#]*)$/.exec(url)?.[1];
  if (path !== undefined) return unixEndpoint(path, origin);
  const parts = /^http:\/\//i.test(url) && URL.canParse(url) ? new URL(url) : undefined;
  const isBare = parts?.pathname === "/" && !(parts.search || parts.hash || parts.username || parts.password);
  if (parts === undefined || !isBare) {
    throw new TensordError("validation-failed", `Cannot use "${url}" of ${from}: it is no server's address`, {
      hint: "want http://host:port or unix:///path",
    });
  }
  const port = parts.port === "" ? 80 : Number(parts.port);
  // Node's sockets want an IPv6 address without its brackets.
  const host = parts.hostname.replace(/^\[(.*)\]$/, "$1");
  return { origin, url: `http://${parts.hostname}:${port}`, host, port };
}

function unixEndpoint(path: string, origin: string): Endpoint {
  const size = Buffer.byteLength(path);
  if (size > maxSocketPathBytes) {
    throw new TensordError(
      "validation-failed",
      `Cannot connect to ${path}: the path has ${size} bytes, want at most ${maxSocketPathBytes} (unix(7))`,
      { hint: "choose a shorter TENSORD_SHM_DIR or TENSORD_INSTANCE" },
    );
  }
  return { origin, url: `unix://${path}`, path };
}
