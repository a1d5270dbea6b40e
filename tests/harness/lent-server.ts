/**
 * Servers that a file's tests have one after the other: a start takes a sixth of a second of the processor, and most tests only need a
 * server that has nothing. Whoever kills or restarts one is its last.
 */

import { assertNothingLeft } from "./instance.ts";
import { listSessions } from "./instance-sessions.ts";
import { TestServer } from "./server.ts";
import { until } from "./server-wait.ts";

/** Takes away all that stands on a running server. What ends by itself meanwhile is as good. */
export async function clearServer({ api }: TestServer): Promise<void> {
  const end = async (path: string) => {
    const { status, body } = await api.request("DELETE", path);
    if (status >= 300 && status !== 404) throw new Error(`DELETE ${path} answered ${status}: ${JSON.stringify(body)}`);
  };
  for (const { id } of await listSessions(api)) await end(`/v1/sessions/${id}`);
  for (const { id, state } of await api.list()) if (state !== "draining") await end(`/v1/regions/${id}`);
  await until("nothing is left", async () => (await api.list()).length === 0);
  const { items } = await api.call<{ items: { name: string }[] }>("GET", "/v1/models?limit=1000");
  for (const { name } of items) if (name !== "default") await end(`/v1/models/${name}`);
}

const idle: LentServer[] = [];

class LentServer extends TestServer {
  /** Those with the same settings may have it. */
  readonly settings: string;
  /** The process that is lent. */
  readonly #lent: { pid: number | undefined } = { pid: undefined };
  /** Which it says when it starts, on the first of its pages. */
  #url: string | undefined;

  constructor(env: Readonly<Record<string, string>>) {
    super({ env });
    this.settings = JSON.stringify(env);
  }

  override async readUrl(): Promise<string> {
    this.#url ??= await super.readUrl();
    return this.#url;
  }

  override async start(): Promise<this> {
    this.#url = undefined;
    await super.start();
    this.#lent.pid ??= this.pid;
    return this;
  }

  /** Stops it, as any other. */
  async end(): Promise<void> {
    await super[Symbol.asyncDispose]();
  }

  /** Gives it back, with nothing on it and nothing unexpected in its log. */
  override async [Symbol.asyncDispose](): Promise<void> {
    if (!this.isRunning || this.pid !== this.#lent.pid) return this.end();
    await using failed = new AsyncDisposableStack();
    failed.defer(() => this.end());
    await clearServer(this);
    await this.readUrl();
    this.log.turnPage();
    failed.move();
    idle.push(this);
  }
}

/**
 * A running server with nothing on it, and with these settings. Dispose of it with `await using`; the file calls `endLentServers` after
 * all its tests.
 */
export async function lendServer(env: Readonly<Record<string, string>> = {}): Promise<TestServer> {
  const at = idle.findIndex(({ settings }) => settings === JSON.stringify(env));
  const [server] = at < 0 ? [] : idle.splice(at, 1);
  if (server !== undefined) return server;
  await using started = new AsyncDisposableStack();
  const fresh = new LentServer(env);
  started.defer(() => fresh.end());
  await fresh.start();
  started.move();
  return fresh;
}

/** For `afterAll` of a file that lends: ends them, and looks whether anything is left. */
export async function endLentServers(): Promise<void> {
  await using ended = new AsyncDisposableStack();
  for (const server of idle.splice(0)) ended.defer(() => server.end());
  await ended.disposeAsync();
  assertNothingLeft();
}
