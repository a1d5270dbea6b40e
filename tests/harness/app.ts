/**
 * The app over a real store on a private instance, without a socket. Every answer is held against the OpenAPI document
 * on its way; at the end everything is purged, and nothing of the instance may be left in the shared directory.
 */

import { expect } from "bun:test";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { FileLane } from "../../src/loaders/file-lane.ts";
import { S3Lane } from "../../src/loaders/source/s3-lane.ts";
import type { S3Options } from "../../src/loaders/source/s3-options.ts";
import type { FailureCode } from "../../src/memory/error.ts";
import type { DeviceReport } from "../../src/memory/host/device.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { openStore, type StoreOptions } from "../../src/memory/start/open-store.ts";
import type { OnStep } from "../../src/memory/state/steps.ts";
import type { Store } from "../../src/memory/state/store.ts";
import type { FdHolder } from "../../src/memory/storage/fd-holder/fd-holder.ts";
import { createApp } from "../../src/routes/app.ts";
import type { Environment, Traffic } from "../../src/routes/environment.ts";
import { toEventText } from "../../src/routes/to-event.ts";
import { purge } from "../../src/server/cli/purge.ts";
import { createHost } from "../../src/server/host.ts";
import { Metrics } from "../../src/server/metrics.ts";
import type { Deletion, Model, Problem, Region, RegionDetail, Stats, Verification } from "./answers.ts";
import { type Answer, checkAnswer, toAnswer } from "./answers.ts";
import { createInstance, defaultShmDirectory } from "./instance.ts";
import { modelFolder } from "./load.ts";
import { noDevices } from "./made-up-devices.ts";
import { patienceMs } from "./server-wait.ts";
import { TokensFile } from "./tokens-file.ts";

export interface AppOptions {
  readonly shmDirectory?: string;
  readonly memoryLimitBytes?: number;
  readonly onStep?: OnStep;
  readonly storages?: StoreOptions["storages"];
  readonly offered?: StoreOptions["offered"];
  readonly fdHolder?: FdHolder;
  /** What lies ready for regions to come, once the app is started; nothing if it is left out. */
  readonly reserve?: StoreOptions["reserve"];
  /** What the drivers of devices tell; no driver if it is left out. */
  readonly devices?: DeviceReport;
  /** One that an app before it has left; a new one if it is left out. */
  readonly instance?: string;
  /** Folders whose files may be loaded; the harness' own if they are left out. */
  readonly modelRoots?: readonly string[];
  /** What objects are asked for with. */
  readonly s3?: S3Options;
  /** Lines of a file of tokens, which the app then asks for. */
  readonly tokens?: readonly object[];
}

export interface RequestOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** `body` is sent as JSON, text and bytes as they are. */
export type Body = object | string | undefined;

/** A test's body with an app of its own: `test("a claim", withApp(async (app) => …))`. */
export function withApp(use: (app: TestApp) => Promise<void>, options?: AppOptions): () => Promise<void> {
  return async function useApp() {
    const app = await TestApp.open(options);
    try {
      await use(app);
    } catch (error) {
      // The first failure is the one to read; what the end finds in its wake would hide it.
      await app.close().catch(() => {});
      if (app.mistakes.length > 0) console.error("mistakes of ours:", app.mistakes);
      throw error;
    }
    await app.close();
    expect(app.mistakes).toEqual([]);
  };
}

export class TestApp {
  readonly instance: string;
  readonly shmDirectory: string;
  readonly store: Store;
  readonly app: OpenAPIHono<Environment>;
  readonly traffic: Traffic;
  /** Mistakes of ours. A test that provokes some takes them out; what is left at the end fails it. */
  readonly mistakes: string[];
  /** What the store warned of. Not all of it is wrong, so it is there to be looked at. */
  readonly warnings: string[];
  /** What the drivers of devices tell from now on. */
  readonly devices: { report: DeviceReport };
  /** Brings up the store's Workers, as a server does before it serves; most tests need none. */
  readonly start: () => Promise<void>;
  /** The file of tokens, if there is one. */
  readonly tokensFile: TokensFile | undefined;
  /** Sent with each request that has no Authorization of its own. */
  token: string | undefined;
  readonly #closeStore: () => Promise<void>;

  private constructor(parts: Pick<TestApp, "instance" | "shmDirectory" | "store" | "app" | "traffic">, rest: Rest) {
    this.instance = parts.instance;
    this.shmDirectory = parts.shmDirectory;
    this.store = parts.store;
    this.app = parts.app;
    this.traffic = parts.traffic;
    this.mistakes = rest.mistakes;
    this.warnings = rest.warnings;
    this.start = rest.start;
    this.tokensFile = rest.tokensFile;
    this.devices = rest.devices;
    this.#closeStore = rest.closeStore;
  }

  static async open(options: AppOptions = {}): Promise<TestApp> {
    const { shmDirectory = defaultShmDirectory, memoryLimitBytes = 512 * MiB, onStep, storages, offered } = options;
    const { modelRoots = ["/models", modelFolder] } = options;
    const { fdHolder, instance = createInstance(shmDirectory).name } = options;
    const warnings: string[] = [];
    const mistakes: string[] = [];
    const opened = await openStore({
      shmDirectory,
      instance,
      memoryLimitBytes,
      offered,
      toEventText,
      onWarning: (message, error) => warnings.push(error === undefined ? message : `${message}: ${error}`),
      ...(onStep === undefined ? {} : { onStep }),
      ...(storages === undefined ? {} : { storages }),
      ...(fdHolder === undefined ? {} : { fdHolder }),
      reserve: options.reserve,
      modelRoots,
    });
    const { store, directory } = opened;
    const traffic = { requests: 0, receivedBytes: 0, sentBytes: 0 };
    const onUnexpected = (error: unknown) => mistakes.push(toMistake(error));
    const metrics = new Metrics("0.0.0");
    metrics.watch(store);
    const devices = { report: options.devices ?? noDevices };
    const host = createHost({
      store,
      directory,
      holder: opened.holder,
      settingBytes: memoryLimitBytes,
      urls: () => [],
      brokerPath: () => null,
      allowedHosts: [],
      descriptors: () => undefined,
      undisturbed: (work) => work(),
      metrics,
      devices: async () => devices.report,
    });
    const observe = metrics.http.observe.bind(metrics.http);
    const tokensFile = options.tokens && new TokensFile(options.tokens, store);
    const authenticate = tokensFile?.authenticate;
    const loading = { roots: modelRoots, files: new FileLane(options.s3 && new S3Lane(options.s3)) };
    const app = createApp({ store, host, version: "0.0.0", loading, traffic, observe, onUnexpected, authenticate });
    const closeStore = async () => {
      tokensFile?.[Symbol.dispose]();
      await opened[Symbol.asyncDispose]();
      loading.files[Symbol.dispose]();
    };
    return new TestApp(
      { instance, shmDirectory, store, app, traffic },
      { warnings, mistakes, start: opened.start, closeStore, tokensFile, devices },
    );
  }

  /** Asks, and holds the answer against the document. */
  async request(method: string, path: string, body?: Body, options: RequestOptions = {}): Promise<Answer> {
    const authorization = this.token === undefined ? {} : { authorization: `Bearer ${this.token}` };
    const init = toInit(method, body, { ...options, headers: { ...authorization, ...options.headers } });
    const response = await this.app.fetch(new Request(`http://localhost${path}`, init), {});
    const answer = await toAnswer(response);
    checkAnswer(method, path, answer);
    return answer;
  }

  /** Asks for what must be refused with `code`, and sees to it that the refusal left nothing behind. */
  async refused(
    code: FailureCode,
    method: string,
    path: string,
    body?: Body,
    options?: RequestOptions,
  ): Promise<Problem> {
    const before = this.footprint();
    const answer = await this.request(method, path, body, options);
    expect(answer.body).toMatchObject({ code });
    expect(this.footprint()).toEqual(before);
    const problem = answer.body as Problem;
    // Both clients and the command line show it, and none of their users sends a request by hand. No client takes a wrong method.
    if (code !== "method-not-allowed")
      expect(problem.hint ?? "", "advice knows no HTTP").not.toMatch(/\/v1\/|\b(GET|POST|PATCH|PUT|DELETE)\b|Prefer/);
    return problem;
  }

  /** Everything that a request could leave behind: the books, and the names in the shared directory. */
  footprint() {
    const { books } = this.store;
    const { counts } = books;
    const { usedBytes, drainingBytes, limitBytes } = books.pools.get("host");
    const claims = this.store.claims.size;
    const leases = this.store.requestedLeases.size;
    const sessions = [...books.sessions.after(0)].map(({ token, usedBytes: used }) => ({ token, used }));
    const models = [...books.models.values()].map(({ name, pools, revision, names, regions, closing }) => {
      const limits = [...pools.all].map((pool) => [pool.name, pool.limitBytes]);
      return { name, limits, revision, names: names.size, regions: regions.size, closing };
    });
    const { deleted: _, ...living } = counts;
    const holds = { sessions, claims, leases };
    return { usedBytes, drainingBytes, limitBytes, counts: living, models, ...holds, files: this.files() };
  }

  /** Every file of the instance but the journal's own, and but what lies ready, which comes and goes by itself; relative to the shared directory. */
  files(): string[] {
    const own = `tensord.${this.instance}`;
    const names = readdirSync(this.shmDirectory).filter((name) => name.startsWith(own));
    for (const folder of ["new", "keep"]) {
      const found = readdirSync(`${this.shmDirectory}/${own}/${folder}`).filter((name) => !name.startsWith("segment-"));
      names.push(...found.map((name) => `${own}/${folder}/${name}`));
    }
    return names.toSorted();
  }

  /** Puts back a private folder that a test removed, so that the instance can be purged. */
  restoreFolder(name: "new" | "keep"): void {
    mkdirSync(`${this.shmDirectory}/tensord.${this.instance}/${name}`, { mode: 0o700 });
  }

  async create(body: Readonly<Record<string, unknown>> = {}): Promise<Region> {
    const sized = "tensors" in body || "byte_size" in body ? {} : { byte_size: 64 };
    const isOwned = ["ttl_ms", "linger_ms", "session", "persist"].some((owner) => owner in body);
    const owned = isOwned ? {} : { ttl_ms: 600_000 };
    return this.ok<Region>(201, "POST", "/v1/regions", { ...sized, ...owned, ...body });
  }

  async seal(id: string, body: object = {}): Promise<Region> {
    return this.ok<Region>(200, "POST", `/v1/regions/${id}/seal`, body);
  }

  async verify(id: string): Promise<Verification> {
    return this.ok<Verification>(200, "POST", `/v1/regions/${id}/verify`);
  }

  async get(id: string): Promise<RegionDetail> {
    return this.ok<RegionDetail>(200, "GET", `/v1/regions/${id}`);
  }

  async remove(id: string): Promise<Deletion> {
    return this.ok<Deletion>(200, "DELETE", `/v1/regions/${id}`);
  }

  async register(name: string, memoryLimitBytes?: number): Promise<Model> {
    const limit = memoryLimitBytes === undefined ? {} : { memory_limit_bytes: memoryLimitBytes };
    return this.ok<Model>(201, "POST", "/v1/models", { name, ...limit });
  }

  async stats(): Promise<Stats> {
    return this.ok<Stats>(200, "GET", "/v1/stats");
  }

  /** Asks for what must be answered with `status`. */
  async ok<Type>(status: number, method: string, path: string, body?: Body, options?: RequestOptions): Promise<Type> {
    const answer = await this.request(method, path, body, options);
    if (answer.status !== status) expect(answer).toMatchObject({ status });
    return answer.body as Type;
  }

  /** Closes the store as a server's stop does; the instance stays for another app. */
  async leave(): Promise<void> {
    this.store.stop();
    await this.#closeStore();
  }

  /** Closes the store and purges the instance. @throws if anything of it is left in the shared directory. */
  async close(): Promise<void> {
    // Whoever waits answers now; requests that a test left behind must not outlive their store.
    await this.leave();
    await purge({ shmDirectory: this.shmDirectory, instance: this.instance }, false, true);
    const left = readdirSync(this.shmDirectory).filter((name) => name.includes(this.instance));
    for (const name of left) rmSync(`${this.shmDirectory}/${name}`, { recursive: true, force: true });
    expect(left).toEqual([]);
  }
}

interface Rest {
  readonly devices: { report: DeviceReport };
  readonly tokensFile: TokensFile | undefined;
  readonly warnings: string[];
  readonly mistakes: string[];
  readonly start: () => Promise<void>;
  readonly closeStore: () => Promise<void>;
}

/** An error that was nobody's fault but ours, in words. */
export function toMistake(error: unknown): string {
  return error instanceof Error ? `${error} ${error.stack}` : String(error);
}

function toInit(method: string, body: Body, { headers, signal }: RequestOptions): RequestInit {
  const isRaw = typeof body === "string" || body instanceof Uint8Array;
  return {
    method,
    headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    ...(body === undefined ? {} : { body: isRaw ? body : JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  };
}

/** Resolves once `condition` gives something that is not false or undefined. @throws after `deadlineMs`, with `what`. */
export async function until<Value>(
  what: string,
  condition: () => Value | Promise<Value>,
  deadlineMs = patienceMs,
): Promise<Exclude<Value, false | undefined>> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value !== false && value !== undefined) return value as Exclude<Value, false | undefined>;
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** What a region of `byteSize` bytes is charged. */
export function toCharge(byteSize: number): number {
  return Math.ceil(byteSize / limits.dataAlignmentBytes) * limits.dataAlignmentBytes;
}
