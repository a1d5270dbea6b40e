/** Where the server is: from an argument, the environment, or the instance's socket. It connects to nothing. */

import { quote } from "../check/value.ts";
import { TensordError } from "../errors.ts";
import { checkPlatform } from "../memory/platform.ts";
import { findToken, type Token } from "./token.ts";

/** sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)). */
const maxSocketPathBytes = 107;

/** One address: `path` of a Unix socket, or `host` and `port`. `origin` says where it was found. */
type Address =
  | { readonly origin: string; readonly url: string; readonly path: string }
  | { readonly origin: string; readonly url: string; readonly host: string; readonly port: number };

/** An address, and the token that says there who asks, if anything does. */
export type Endpoint = Address & { readonly token: Token | undefined };

const maxPort = 65_535;

/**
 * An address in one of its forms, as Python's client has them (`clients/addresses.json`). Taken apart here: a URL's parser
 * would fold and escape what is a path of the file system, and each language's takes another set of mistakes for hosts.
 */
const forms =
  /^(?:unix:(?:\/\/)?(?<path>\/(?!\/)[^?#]*)|http:\/\/(?<host>\[[\da-f:.]+\]|[\w-]+(?:\.[\w-]+)*)(?::(?<port>\d{0,5}))?\/?)$/i;
const blanks = /^[ \t\r\n\f\v]+|[ \t\r\n\f\v]+$/g;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The address to use: `url`, else `TENSORD_URL`, else `<TENSORD_SHM_DIR>/tensord.<TENSORD_INSTANCE>/http.sock`; and the token:
 * `token`, else `TENSORD_TOKEN`, else what the file `TENSORD_TOKEN_FILE` has.
 * @throws TensordError `validation-failed` if one of them is none; `feature-unavailable` if there can be no such socket
 */
export function findEndpoint(url?: string, env: Environment = process.env, token?: string): Endpoint {
  return { ...findAddress(url, env), token: findToken(token, env) };
}

/** What to do where no server answers. In a pod nobody starts one, but its volume may not be mounted in this container. */
export function howToReach(env: Environment = process.env): string {
  const otherwise = "set TENSORD_URL to http://host:port or unix:///path";
  // The kubelet sets it in every container.
  return env.KUBERNETES_SERVICE_HOST
    ? "mount the sidecar's volume in this container, by the subPath and at the path that TENSORD_SHM_DIR names, and look whether " +
        `the sidecar runs (kubectl logs <pod> -c tensord), or ${otherwise}`
    : `start the server with \`tensord serve\` (\`npm start\` in its repository), or ${otherwise}`;
}

/** The header that says who asks. @throws TensordError `validation-failed` if the token's file has none. */
export function toAuthorization({ token }: Endpoint): { readonly authorization?: string } {
  return token === undefined ? {} : { authorization: `Bearer ${token.read()}` };
}

function findAddress(url: string | undefined, env: Environment): Address {
  if (url !== undefined) return parseUrl(withoutBlanks(url), "the argument url");
  const fromEnvironment = withoutBlanks(env.TENSORD_URL ?? "");
  if (fromEnvironment !== "") return parseUrl(fromEnvironment, "TENSORD_URL");
  const elsewhere =
    "set TENSORD_URL to http://host:port for what maps nothing; regions are mapped where the server runs";
  checkPlatform("find a server in shared memory", elsewhere);
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

/** Without those around it, which come with what is read from a file. */
function withoutBlanks(url: string): string {
  return url.replace(blanks, "");
}

function parseUrl(url: string, from: string): Address {
  const origin = `it comes from ${from}`;
  const { path, host, port } = forms.exec(url)?.groups ?? {};
  if (path !== undefined && !/\p{Cc}/u.test(path)) return unixEndpoint(path, origin);
  const hostname = host === undefined ? undefined : toHostname(host);
  const number = Number(port || 80);
  if (hostname === undefined || number === 0 || number > maxPort) {
    throw new TensordError("validation-failed", `Cannot use ${quote(url)} of ${from}: it is no server's address`, {
      hint: "want http://host:port or unix:///path",
    });
  }
  // Node's sockets want an IPv6 address without its brackets.
  return { origin, url: `http://${hostname}:${number}`, host: hostname.replace(/^\[(.*)\]$/, "$1"), port: number };
}

/** The host in the one spelling of its address (127.1 is 127.0.0.1), or undefined if it is none. */
function toHostname(host: string): string | undefined {
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : undefined;
}

function unixEndpoint(path: string, origin: string): Address {
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
