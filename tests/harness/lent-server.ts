/**
 * Servers that a file's tests have one after the other: a start takes a sixth of a second of the processor, and most tests only need a
 * server that has nothing. Whoever kills or restarts one is its last.
 */

import { assertNothingLeft } from "./instance.ts";
import { listSessions } from "./instance-sessions.ts";
import { TestServer } from "./server.ts";
import type { LogLine } from "./server-log.ts";
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

type Env = Readonly<Record<string, string>>;

/** By their settings. */
const idle = new Map<string, LentServer[]>();

class LentServer extends TestServer {
  /** The process that is lent, and where its log said that it listens, which whoever has it later finds there no more. */
  readonly #lent: { pid: number | undefined; url: string } = { pid: undefined, url: "" };
  readonly #settings: string;

  constructor(env: Env) {
    super({ env });
    this.#settings = JSON.stringify(env);
  }

  override async start(): Promise<this> {
    await super.start();
    if (this.#lent.pid !== undefined) return this;
    this.#lent.pid = this.pid;
    this.#lent.url = await super.readUrl();
    return this;
  }

  override async readUrl(): Promise<string> {
    return this.pid === this.#lent.pid ? this.#lent.url : await super.readUrl();
  }

  /** Stops it, as any other. */
  async end(): Promise<void> {
    await super[Symbol.asyncDispose]();
  }

  /** Until its log has come up to here: it is read beside, and a line of this test would be one of the next. */
  async #hearAll(): Promise<void> {
    const model = `until-${crypto.randomUUID()}`;
    await this.api.call("POST", "/v1/models", { name: model });
    await this.api.call("DELETE", `/v1/models/${model}`);
    const isLast = (line: LogLine) => line.msg === "tensord.model.unregistered" && line.model === model;
    await until("its log is read", () => this.log.lines.some(isLast));
  }

  /** Gives it back, with nothing on it and nothing unexpected in its log. */
  override async [Symbol.asyncDispose](): Promise<void> {
    if (!this.isRunning || this.pid !== this.#lent.pid) return this.end();
    await using failed = new AsyncDisposableStack();
    failed.defer(() => this.end());
    await clearServer(this);
    await this.#hearAll();
    this.log.turnPage();
    failed.move();
    idle.getOrInsertComputed(this.#settings, () => []).push(this);
  }
}

/** A running server with nothing on it. Dispose of it with `await using`; the file calls `endLentServers` after all its tests. */
export async function lendServer(env: Env = {}): Promise<TestServer> {
  const server = idle.get(JSON.stringify(env))?.pop();
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
  for (const server of [...idle.values()].flat()) ended.defer(() => server.end());
  idle.clear();
  await ended.disposeAsync();
  assertNothingLeft();
}
