/** The way in. */

import { checkOptions } from "./check/options.ts";
import * as tables from "./check/tables.ts";
import { quote } from "./check/value.ts";
import { Client } from "./client.ts";
import { isTensordError, TensordError } from "./errors.ts";
import { Api } from "./http/api.ts";
import { type Endpoint, findEndpoint } from "./http/endpoint.ts";
import { Transport } from "./http/transport.ts";
import type { ConnectOptions } from "./options.ts";
import { pause } from "./waiting.ts";

const defaultRetryMs = 10_000;
const readyPollMs = 50;

/**
 * A client of the server at `url`, else at `TENSORD_URL`, else on the Unix socket
 * `<TENSORD_SHM_DIR>/tensord.<TENSORD_INSTANCE>/http.sock` (`/dev/shm` and `default`).
 * `token` says who asks where the server wants to know, else `TENSORD_TOKEN` does, else the file `TENSORD_TOKEN_FILE`.
 * @throws TensordError `server-unavailable` when the wait is over, `validation-failed` for what is no address or no token
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  check(options);
  const { url, token, waitMs = 0, retryMs = defaultRetryMs, session = {}, signal } = options;
  const endpoint = findEndpoint(url, process.env, token);
  if (waitMs > 0) await waitUntilReady(endpoint, waitMs, signal);
  return new Client(new Transport(endpoint, retryMs), session);
}

function check(options: ConnectOptions): void {
  if (typeof options === "string" || (options as unknown) instanceof URL) {
    const given = quote(String(options));
    throw new TensordError("validation-failed", `Cannot connect: its options are ${given}, want an object`, {
      hint: `connect({ url: ${given} })`,
    });
  }
  checkOptions("connect", tables.connect, options);
  const { session = false } = options;
  if (session !== false) checkOptions("open a session", tables.sessions, session);
}

async function waitUntilReady(endpoint: Endpoint, waitMs: number, signal: AbortSignal | undefined): Promise<void> {
  const deadline = performance.now() + waitMs;
  const transport = new Transport(endpoint, 0);
  const api = new Api(transport);
  try {
    for (;;) {
      const failure = await api.isReady(signal).then(
        (isReady) => (isReady ? undefined : notReady(endpoint, waitMs)),
        (error: unknown) => {
          if (isTensordError(error, "server-unavailable")) return error;
          throw error;
        },
      );
      if (failure === undefined) return;
      if (performance.now() >= deadline) throw failure;
      await pause(readyPollMs, { signal });
    }
  } finally {
    transport.close();
  }
}

function notReady({ url }: Endpoint, waitMs: number): TensordError {
  return new TensordError("server-unavailable", `Cannot use tensord on ${url}: it was not ready within ${waitMs} ms`);
}
