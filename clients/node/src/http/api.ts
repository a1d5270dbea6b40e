/**
 * The server's routes, one method each: our words in and out, problems thrown. No mapping and no waiting loops. Bodies
 * carry only what the caller gave, so that the server's defaults and refusals stay the server's.
 */

import { isTensordError, TensordError } from "../errors.ts";
import {
  type Answer,
  type Body,
  type Method,
  type Operation,
  type Parameters,
  type Path,
  toPath,
} from "./operation.ts";
import type { Download, Reply, Sending, Transport, Upload } from "./transport.ts";
import {
  type Capabilities,
  type Claim,
  type Deletion,
  type Device,
  type DeviceList,
  type Eviction,
  expectSuccess,
  type FromWire,
  isObject,
  type Lease,
  type ListedRegion,
  type Model,
  type OperationDescriptor,
  parseClaim,
  parseDescriptor,
  parseGroup,
  parseListedRegion,
  parseObject,
  type RegionDescriptor,
  type Residency,
  type SessionDescriptor,
  type SessionEnd,
  type Stats,
  toWire,
  type Verification,
} from "./wire.ts";

/** Allocating, checksumming and freeing take time by the gigabyte. */
const longMs = 600_000;
const listPage = 1000;
/** The longest that the server takes. While its session is held, a lease does not run out. */
const leaseTtlMs = 24 * 3_600_000;

/** The answer of a create: `isCreated` is false if the region was there before. */
export interface Creation {
  readonly region: RegionDescriptor;
  readonly isCreated: boolean;
}

/** Which region is meant by its name: without a version the newest that is sealed, or, where none is, the newest. */
export interface NamedRegion {
  readonly model: string;
  readonly name: string;
  readonly version?: string | undefined;
}

/** How long an answer may be held back, and what ends the wait. */
type Waiting = Pick<Sending, "waitUntil" | "signal">;

/** Which revision is to be changed, and what ends the wait for it. */
export type Revising = Pick<Sending, "ifMatch" | "signal">;

export type NewCopy = Body<Operation<"POST", "/v1/regions/{region}/copy">>;
export type NewLoad = Body<Operation<"POST", "/v1/models/{model}/load">>;
export type NewRegion = Body<Operation<"POST", "/v1/regions">>;

type ListPath =
  | "/v1/regions"
  | "/v1/operations"
  | "/v1/models"
  | "/v1/sessions"
  | "/v1/vmm"
  | "/v1/regions/{region}/leases";
type ListQuery<P extends ListPath> = Parameters<Operation<"GET", P>>["query"];
type ListItem<P extends ListPath> = Answer<Operation<"GET", P>>["items"][number];

/** As `Parameters`, of any operation. */
interface AnyParameters {
  readonly path?: object | undefined;
  readonly query?: object | undefined;
  readonly body?: unknown;
}

/** One server's routes. Every method throws what `fromProblem` and `Transport` make. */
export class Api {
  /** Whether a region that this client made could be reached here neither by its name nor by the broker. */
  sharesNoMemory = false;
  readonly transport: Transport;
  #instance: string | undefined;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  async isReady(signal?: AbortSignal | undefined): Promise<boolean> {
    return (await this.send("GET", "/readyz", { isRepeatable: false, signal })).status === 200;
  }

  capabilities(signal?: AbortSignal | undefined): Promise<Capabilities> {
    return this.ask("GET", "/v1/capabilities", { isRepeatable: true, signal });
  }

  async createRegion(body: NewRegion, signal?: AbortSignal | undefined): Promise<Creation> {
    // A repeat after a lost answer could make a second region, or find its own name taken. With "attach", or under a claim,
    // it finds the region that the lost request made, if it made one.
    const isRepeatable = body.ifExists === "attach" || (body.ifExists === "replace" && body.claim !== undefined);
    const askedAt = Date.now();
    const answerMs = longMs + (body.deadlineMs ?? 0);
    const reply = await this.send("POST", "/v1/regions", { body, isRepeatable, answerMs, signal });
    const region = parseDescriptor(expectSuccess(reply));
    if (reply.status === 201) return { region, isCreated: true };
    return { region, isCreated: reply.isRepeated && (await this.#isFrom(region, askedAt)) };
  }

  /**
   * Whether the region is our own lost request's: open, younger than it, and mapped by nobody yet. If it were taken for
   * somebody else's, nobody would ever fill it.
   */
  async #isFrom({ id, state, createdAt }: RegionDescriptor, askedAt: number): Promise<boolean> {
    if (state !== "open" || !(Date.parse(createdAt) >= askedAt)) return false;
    return (await this.region(id)).inUse === false;
  }

  async region(id: string, signal?: AbortSignal | undefined): Promise<RegionDescriptor> {
    const request = { path: { region: id }, isRepeatable: true, signal };
    const reply = await this.send("GET", "/v1/regions/{region}", request);
    return parseDescriptor(expectSuccess(reply));
  }

  /** All of a region's bytes behind its header. A repeat writes the same ones. */
  async upload(id: string, data: Upload, signal?: AbortSignal | undefined): Promise<void> {
    const path = toPath("/v1/regions/{region}/data", { region: id });
    const sending = { upload: data, isRepeatable: true, answerMs: longMs, signal };
    expectSuccess(await this.transport.request("PUT", path, sending));
  }

  /** All of a region's file, its header too, in order and in pieces; from the beginning after a loss. */
  async download(id: string, byteSize: number, write: Download["write"]): Promise<void> {
    const path = toPath("/v1/regions/{region}/file/{file}", { region: id, file: id });
    const sending = { download: { byteSize, write }, isRepeatable: true, answerMs: longMs };
    expectSuccess(await this.transport.request("GET", path, sending));
  }

  /** Of which instance the server is; asked once. */
  async instance(signal?: AbortSignal | undefined): Promise<string> {
    this.#instance ??= (await this.capabilities(signal)).instance;
    return this.#instance ?? "";
  }

  async regionByName(
    { model, name, version }: NamedRegion,
    { signal, waitUntil, isToMap = false }: Waiting & { readonly isToMap?: boolean } = {},
  ): Promise<RegionDescriptor> {
    // Who only looks takes no hand-off from its consumer.
    const prefer = isToMap ? "attach" : undefined;
    const request = { path: { model, name }, query: { version }, isRepeatable: true, signal, waitUntil, prefer };
    return parseDescriptor(expectSuccess(await this.send("GET", "/v1/models/{model}/regions/{name}", request)));
  }

  async seal(
    id: string,
    body: Body<Operation<"POST", "/v1/regions/{region}/seal">>,
    { ifMatch, signal }: Revising = {},
  ): Promise<RegionDescriptor> {
    const request = { path: { region: id }, body, isRepeatable: true, answerMs: longMs, ifMatch, signal };
    const reply = await this.send("POST", "/v1/regions/{region}/seal", request);
    try {
      return parseDescriptor(expectSuccess(reply));
    } catch (error) {
      // The lost request has sealed it: this is its answer.
      if (reply.isRepeated && isTensordError(error, "region-sealed")) return this.region(id);
      throw error;
    }
  }

  /** Seals all or none. @returns what was sealed, in the body's order */
  async sealGroup(
    body: Body<Operation<"POST", "/v1/seal">>,
    signal?: AbortSignal | undefined,
  ): Promise<readonly ListedRegion[]> {
    const reply = await this.send("POST", "/v1/seal", { body, isRepeatable: true, answerMs: longMs, signal });
    try {
      return parseGroup(expectSuccess(reply), parseListedRegion);
    } catch (error) {
      if (!reply.isRepeated || !isTensordError(error, "region-sealed")) throw error;
      // All of them are sealed or none: the lost request has done it.
      const regions: RegionDescriptor[] = [];
      for (const { region } of body.regions) regions.push(await this.region(region, signal));
      if (regions.every(({ state }) => state === "sealed")) return regions;
      throw error;
    }
  }

  /** The regions of these names, all as they are at once. */
  async openGroup(
    body: Body<Operation<"POST", "/v1/open">>,
    { signal, waitUntil }: Waiting = {},
  ): Promise<readonly RegionDescriptor[]> {
    const request = { body, isRepeatable: true, signal, waitUntil };
    return parseGroup(expectSuccess(await this.send("POST", "/v1/open", request)), parseDescriptor);
  }

  verify(id: string, signal?: AbortSignal | undefined): Promise<Verification> {
    const request = { path: { region: id }, isRepeatable: true, answerMs: longMs, signal };
    return this.ask("POST", "/v1/regions/{region}/verify", request);
  }

  advise(id: string, advice: "willneed" | "dontneed", signal?: AbortSignal | undefined): Promise<Residency> {
    const request = { path: { region: id }, body: { advice }, isRepeatable: true, answerMs: longMs, signal };
    return this.ask("POST", "/v1/regions/{region}/advise", request);
  }

  flush(id: string, signal?: AbortSignal | undefined): Promise<{ readonly durable: boolean }> {
    const request = { path: { region: id }, isRepeatable: true, answerMs: longMs, signal };
    return this.ask("POST", "/v1/regions/{region}/flush", request);
  }

  async changeRegion(
    id: string,
    body: Body<Operation<"PATCH", "/v1/regions/{region}">>,
    { ifMatch, signal }: Revising = {},
  ): Promise<RegionDescriptor> {
    // A repeat would find the revision that a lost request has made.
    const request = { path: { region: id }, body, isRepeatable: ifMatch === undefined, ifMatch, signal };
    return parseDescriptor(expectSuccess(await this.send("PATCH", "/v1/regions/{region}", request)));
  }

  async deleteRegion(id: string, { ifMatch, signal }: Revising = {}): Promise<Deletion> {
    const request = { path: { region: id }, isRepeatable: true, answerMs: longMs, ifMatch, signal };
    const reply = await this.send("DELETE", "/v1/regions/{region}", request);
    try {
      return parseObject(expectSuccess(reply));
    } catch (error) {
      if (reply.isRepeated && isTensordError(error, "region-not-found")) return { state: "deleted", freedBytes: 0 };
      throw error;
    }
  }

  async *regions(
    query: ListQuery<"/v1/regions">,
    signal?: AbortSignal | undefined,
  ): AsyncGenerator<ListedRegion, void, undefined> {
    for await (const item of this.pages("/v1/regions", query, signal)) yield parseListedRegion(item);
  }

  async *leases(id: string, signal?: AbortSignal | undefined): AsyncGenerator<Lease, void, undefined> {
    const path = "/v1/regions/{region}/leases";
    for await (const item of this.pages(path, {}, signal, { region: id })) yield parseObject(item);
  }

  registerModel(body: Body<Operation<"POST", "/v1/models">>, signal?: AbortSignal | undefined): Promise<Model> {
    return this.ask("POST", "/v1/models", { body, isRepeatable: false, signal });
  }

  async *models(signal?: AbortSignal | undefined): AsyncGenerator<Model, void, undefined> {
    for await (const item of this.pages("/v1/models", {}, signal)) yield parseObject(item);
  }

  model(name: string, signal?: AbortSignal | undefined): Promise<Model> {
    return this.ask("GET", "/v1/models/{model}", { path: { model: name }, isRepeatable: true, signal });
  }

  changeModel(
    name: string,
    body: Body<Operation<"PATCH", "/v1/models/{model}">>,
    { ifMatch, signal }: Revising = {},
  ): Promise<Model> {
    const request = { path: { model: name }, body, isRepeatable: ifMatch === undefined, ifMatch, signal };
    return this.ask("PATCH", "/v1/models/{model}", request);
  }

  unregisterModel(name: string, isDraining: boolean, { ifMatch, signal }: Revising = {}): Promise<Deletion> {
    const query = isDraining ? ({ drain: "true" } as const) : undefined;
    const request = { path: { model: name }, query, isRepeatable: true, answerMs: longMs, ifMatch, signal };
    return this.ask("DELETE", "/v1/models/{model}", request);
  }

  openSession(body: Body<Operation<"POST", "/v1/sessions">>): Promise<SessionDescriptor> {
    // One whose answer was lost is held by nobody, and its TTL ends it.
    return this.ask("POST", "/v1/sessions", { body, isRepeatable: true, isForToken: true });
  }

  session(id: string, signal?: AbortSignal | undefined): Promise<SessionDescriptor> {
    return this.ask("GET", "/v1/sessions/{session}", { path: { session: id }, isRepeatable: true, signal });
  }

  async *sessions(signal?: AbortSignal | undefined): AsyncGenerator<SessionDescriptor, void, undefined> {
    for await (const item of this.pages("/v1/sessions", {}, signal)) yield parseObject(item);
  }

  endSession(id: string, signal?: AbortSignal | undefined): Promise<SessionEnd> {
    const request = { path: { session: id }, isRepeatable: true, answerMs: longMs, signal };
    return this.ask("DELETE", "/v1/sessions/{session}", request);
  }

  /**
   * The same `key` of the same session gets the same claim again, so an answer may be lost. `rebuild` is the id of a sealed
   * region that is to be built anew.
   */
  async claim(
    { model, name, version }: NamedRegion,
    { session, key, rebuild }: { readonly session: string; readonly key: string; readonly rebuild: string | undefined },
    { signal, waitUntil }: Waiting = {},
  ): Promise<Claim> {
    const body = { session, key, version, rebuild };
    const request = { path: { model, name }, body, isRepeatable: true, signal, waitUntil };
    return parseClaim(expectSuccess(await this.send("POST", "/v1/models/{model}/regions/{name}/claim", request)));
  }

  async releaseClaim({ model, name, version }: NamedRegion, claim: string): Promise<void> {
    const request = { path: { model, name }, query: { claim, version }, isRepeatable: true };
    const reply = await this.send("DELETE", "/v1/models/{model}/regions/{name}/claim", request);
    // Whoever does not hold it has released it.
    if (reply.status !== 404) expectSuccess(reply);
  }

  /** If the answer is lost there are two, and both end with the session. While that is held, neither runs out. */
  async takeLease(region: string, session: string, signal?: AbortSignal | undefined): Promise<string> {
    const request = { path: { region }, body: { session, ttlMs: leaseTtlMs }, isRepeatable: true, signal };
    return (await this.ask("POST", "/v1/regions/{region}/leases", request)).id;
  }

  async endLease(lease: string): Promise<void> {
    await this.ask("DELETE", "/v1/leases/{lease}", { path: { lease }, isRepeatable: true });
  }

  /** With its key a repeat finds what the lost request has begun. */
  copyRegion(id: string, body: NewCopy, signal?: AbortSignal | undefined): Promise<OperationDescriptor> {
    const request = { path: { region: id }, body, isRepeatable: body.key !== undefined, signal };
    return this.ask("POST", "/v1/regions/{region}/copy", request);
  }

  /** As of a copy. */
  loadModel(model: string, body: NewLoad, signal?: AbortSignal | undefined): Promise<OperationDescriptor> {
    const request = { path: { model }, body, isRepeatable: body.key !== undefined, signal };
    return this.ask("POST", "/v1/models/{model}/load", request);
  }

  operation(id: string, { signal, waitUntil }: Waiting = {}): Promise<OperationDescriptor> {
    const request = { path: { operation: id }, isRepeatable: true, signal, waitUntil };
    return this.ask("GET", "/v1/operations/{operation}", request);
  }

  async *operations(
    query: ListQuery<"/v1/operations">,
    signal?: AbortSignal | undefined,
  ): AsyncGenerator<OperationDescriptor, void, undefined> {
    for await (const item of this.pages("/v1/operations", query, signal)) yield parseObject(item);
  }

  cancelOperation(id: string, signal?: AbortSignal | undefined): Promise<OperationDescriptor> {
    const request = { path: { operation: id }, isRepeatable: true, answerMs: longMs, signal };
    return this.ask("DELETE", "/v1/operations/{operation}", request);
  }

  evict(body: Body<Operation<"POST", "/v1/evict">>, signal?: AbortSignal | undefined): Promise<Eviction> {
    // What a lost request freed, another one would not count, and free as much again.
    return this.ask("POST", "/v1/evict", { body, isRepeatable: body.dryRun === true, answerMs: longMs, signal });
  }

  stats(signal?: AbortSignal | undefined): Promise<Stats> {
    return this.ask("GET", "/v1/stats", { isRepeatable: true, signal });
  }

  devices(signal?: AbortSignal | undefined): Promise<DeviceList> {
    return this.ask("GET", "/v1/devices", { isRepeatable: true, signal });
  }

  device(uuid: string, signal?: AbortSignal | undefined): Promise<Device> {
    return this.ask("GET", "/v1/devices/{device_uuid}", { path: { device_uuid: uuid }, isRepeatable: true, signal });
  }

  /** The items of a list, as the wire has them, page by page. */
  async *pages<P extends ListPath>(
    path: P,
    query: ListQuery<P>,
    signal: AbortSignal | undefined,
    parts?: object,
  ): AsyncGenerator<ListItem<P>, void, undefined> {
    for (let cursor: string | undefined; ; ) {
      const request = { path: parts, query: { limit: listPage, ...query, cursor }, isRepeatable: true, signal };
      const page = expectSuccess(await this.#request("GET", path, request));
      if (!isObject(page) || !Array.isArray(page.items)) {
        throw new TensordError("server-fault", "Cannot read the server's answer: it is no list", {
          hint: "is this a tensord server?",
        });
      }
      yield* page.items;
      if (typeof page.next_cursor !== "string") return;
      cursor = page.next_cursor;
    }
  }

  /** Asks, and reads an answer of whose fields nothing here relies on. */
  async ask<M extends Method, P extends Path<M>>(
    method: M,
    path: P,
    request: Sending & Parameters<Operation<M, P>>,
  ): Promise<FromWire<Answer<Operation<M, P>>>> {
    return parseObject(expectSuccess(await this.send(method, path, request)));
  }

  /** Asks, and gives the answer as it came. */
  send<M extends Method, P extends Path<M>>(
    method: M,
    path: P,
    request: Sending & Parameters<Operation<M, P>>,
  ): Promise<Reply> {
    return this.#request(method, path, request);
  }

  #request(
    method: Method,
    template: string,
    { path, query, body, ...sending }: Sending & AnyParameters,
  ): Promise<Reply> {
    return this.transport.request(method, toPath(template, path, query), { ...sending, body: toWire(body) });
  }
}
