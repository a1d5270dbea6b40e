/** WebSockets to the server, over its Unix socket or TCP, and what it says when it refuses one. */

import type { IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import type WebSocket from "ws";
import { findOutOfDescriptors, outOfDescriptors } from "../descriptors.ts";
import { isTensordError, TensordError } from "../errors.ts";
import { loadWebSocket } from "../packages.ts";
import { type Endpoint, howToReach, toAuthorization } from "./endpoint.ts";
import { expectSuccess } from "./wire.ts";

const maxFrameBytes = 16 * 1024 * 1024;
const maxProblemBytes = 1024 * 1024;
const handshakeMs = 10_000;

export interface OpenedSocket {
  readonly webSocket: WebSocket;
  /** What it runs on. */
  readonly connection: Socket;
}

/** Begins to connect; events tell how that goes. @param headers say who asks: read before a connection stands that nobody would close. */
export function openWebSocket(endpoint: Endpoint, path: string, headers = toAuthorization(endpoint)): OpenedSocket {
  const Kind = loadWebSocket();
  const connection = "path" in endpoint ? connect({ path: endpoint.path }) : connect(endpoint.port, endpoint.host);
  const origin = "path" in endpoint ? "ws://localhost" : endpoint.url.replace(/^http/, "ws");
  const webSocket = new Kind(`${origin}${path}`, {
    createConnection: () => connection,
    headers,
    maxPayload: maxFrameBytes,
    perMessageDeflate: false,
    handshakeTimeout: handshakeMs,
  });
  return { webSocket, connection };
}

/** The error that an HTTP answer in a WebSocket's place says. `action` is what could not be done: "hold the session". */
export async function readRefusal(response: IncomingMessage, action: string): Promise<TensordError> {
  const status = response.statusCode ?? 0;
  try {
    expectSuccess({ status, body: JSON.parse(await readText(response)) });
  } catch (error) {
    if (isTensordError(error)) return error;
  }
  return unreachable(action, `it answered ${status}`);
}

/** What an error of the connection says: nobody is there, unless it is this process that cannot connect. */
export function toUnreachable(action: string, error: Error): TensordError {
  const exhausted = findOutOfDescriptors(error);
  return exhausted === undefined ? unreachable(action, error.message) : outOfDescriptors(action, exhausted);
}

/** `server-unavailable`, and why. */
function unreachable(action: string, why: string): TensordError {
  return new TensordError("server-unavailable", `Cannot ${action}: ${why}`, {
    hint: howToReach(),
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) {
    text += chunk;
    if (text.length > maxProblemBytes) throw new Error("its answer is too long");
  }
  return text;
}
