/**
 * The server's routes, one method each: our words in and out, problems thrown. No mapping and no waiting loops. Bodies
 * carry only what the caller gave, so that the server's defaults and refusals stay the server's.
 */

import { fromProblem, isTensordError, TensordError } from "../errors.ts";
import type { Reply, Transport } from "./transport.ts";
import {
  type Claim,
  type Deletion,
  fromWire,
  isObject,
  type ListedRegion,
  type Model,
  parseClaim,
  parseDescriptor,
  parseListedRegion,
  parseObject,
  type RegionDescriptor,
  type SessionDescriptor,
  type SessionEnd,
  type Stats,
  toWire,
  type Verification,
} from "./wire.ts";

/** Allocating, checksumming and freeing take time by the gigabyte. */
const longMs = 600_000;
const listPage = 1000;

/** The answer of a create: `isCreated` is false if the region was there before. */
export interface Creation {
  readonly region: RegionDescriptor;
  readonly isCreated: boolean;
}

/** The body of a create, of which these fields say how it is sent. */
export interface NewRegion {
  readonly ifExists?: string | undefined;
  readonly deadlineMs?: number | undefined;
  readonly [field: string]: unknown;
}

export interface ClaimRequest {
  readonly session: string;
  readonly key: string;
}

/** One server's routes. Every method throws what `fromProblem` and `Transport` make. */
export class Api {
  readonly transport: Transport;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  async isReady(): Promise<boolean> {
    return (await this.transport.request("GET", "/readyz", { isRepeatable: false })).status === 200;
  }

  async createRegion(body: NewRegion): Promise<Creation> {
    // A repeat after a lost answer could make a second region, or find its own name taken. With "attach" it finds the
    // region that the lost request made, if it made one.
    const isRepeatable = body.ifExists === "attach";
    const askedAt = Date.now();
    const request = { body: toWire(body), isRepeatable, answerMs: longMs + (body.deadlineMs ?? 0) };
    const reply = await this.transport.request("POST", "/v1/regions", request);
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

  async region(id: string): Promise<RegionDescriptor> {
    return parseDescriptor(await this.#get(regionPath(id)));
  }

  async regionByName(model: string, name: string, waitUntil?: number): Promise<RegionDescriptor> {
    const path = `${modelPath(model)}/regions/${checkName(name, "region")}`;
    return parseDescriptor(expectSuccess(await this.transport.request("GET", path, { isRepeatable: true, waitUntil })));
  }

  async seal(id: string, body: object): Promise<RegionDescriptor> {
    const path = `${regionPath(id)}/seal`;
    const request = { body: toWire(body), isRepeatable: true, answerMs: longMs };
    const reply = await this.transport.request("POST", path, request);
    try {
      return parseDescriptor(expectSuccess(reply));
    } catch (error) {
      // The lost request has sealed it: this is its answer.
      if (reply.isRepeated && isTensordError(error, "region-sealed")) return this.region(id);
      throw error;
    }
  }

  async verify(id: string): Promise<Verification> {
    const request = { isRepeatable: true, answerMs: longMs };
    return parseObject(expectSuccess(await this.transport.request("POST", `${regionPath(id)}/verify`, request)));
  }

  async changeRegion(id: string, body: object): Promise<RegionDescriptor> {
    const request = { body: toWire(body), isRepeatable: true };
    return parseDescriptor(expectSuccess(await this.transport.request("PATCH", regionPath(id), request)));
  }

  async deleteRegion(id: string): Promise<Deletion> {
    const reply = await this.transport.request("DELETE", regionPath(id), { isRepeatable: true, answerMs: longMs });
    try {
      return parseObject(expectSuccess(reply));
    } catch (error) {
      if (reply.isRepeated && isTensordError(error, "region-not-found")) return { state: "deleted", freedBytes: 0 };
      throw error;
    }
  }

  async *regions(query: Readonly<Record<string, string>>): AsyncGenerator<ListedRegion, void, undefined> {
    for await (const item of this.#pages("/v1/regions", query)) yield parseListedRegion(item);
  }

  async registerModel(body: object): Promise<Model> {
    const request = { body: toWire(body), isRepeatable: false };
    return parseObject(expectSuccess(await this.transport.request("POST", "/v1/models", request)));
  }

  async *models(): AsyncGenerator<Model, void, undefined> {
    for await (const item of this.#pages("/v1/models", {})) yield parseObject<Model>(item);
  }

  async model(name: string): Promise<Model> {
    return parseObject(await this.#get(modelPath(name)));
  }

  async changeModel(name: string, body: object): Promise<Model> {
    const request = { body: toWire(body), isRepeatable: true };
    return parseObject(expectSuccess(await this.transport.request("PATCH", modelPath(name), request)));
  }

  async unregisterModel(name: string, drain: boolean): Promise<Deletion> {
    const path = `${modelPath(name)}${drain ? "?drain=true" : ""}`;
    const request = { isRepeatable: true, answerMs: longMs };
    return parseObject(expectSuccess(await this.transport.request("DELETE", path, request)));
  }

  async openSession(body: object): Promise<SessionDescriptor> {
    // One whose answer was lost is held by nobody, and its TTL ends it.
    const request = { body: toWire(body), isRepeatable: true };
    return parseObject(expectSuccess(await this.transport.request("POST", "/v1/sessions", request)));
  }

  async session(id: string): Promise<SessionDescriptor> {
    return parseObject(await this.#get(`/v1/sessions/${id}`));
  }

  async endSession(id: string): Promise<SessionEnd> {
    const request = { isRepeatable: true, answerMs: longMs };
    return parseObject(expectSuccess(await this.transport.request("DELETE", `/v1/sessions/${id}`, request)));
  }

  /** The same `key` of the same session gets the same claim again, so an answer may be lost. */
  async claim(model: string, name: string, body: ClaimRequest, waitUntil: number): Promise<Claim> {
    const request = { body: toWire(body), isRepeatable: true, waitUntil };
    return parseClaim(expectSuccess(await this.transport.request("POST", claimPath(model, name), request)));
  }

  async releaseClaim(model: string, name: string, claim: string): Promise<void> {
    const path = `${claimPath(model, name)}?claim=${claim}`;
    const reply = await this.transport.request("DELETE", path, { isRepeatable: true });
    // Whoever does not hold it has released it.
    if (reply.status !== 404) expectSuccess(reply);
  }

  async stats(): Promise<Stats> {
    return parseObject(await this.#get("/v1/stats"));
  }

  async #get(path: string): Promise<unknown> {
    return expectSuccess(await this.transport.request("GET", path, { isRepeatable: true }));
  }

  async *#pages(path: string, query: Readonly<Record<string, string>>): AsyncGenerator<unknown, void, undefined> {
    const parameters = new URLSearchParams({ limit: String(listPage), ...query });
    for (;;) {
      const page = await this.#get(`${path}?${parameters}`);
      if (!isObject(page) || !Array.isArray(page.items)) {
        throw new TensordError("server-fault", "Cannot read the server's answer: it is no list", {
          hint: "is this a tensord server?",
        });
      }
      yield* page.items;
      if (typeof page.next_cursor !== "string") return;
      parameters.set("cursor", page.next_cursor);
    }
  }
}

/** The body of a success. @throws TensordError what the problem says */
export function expectSuccess({ status, body }: Pick<Reply, "status" | "body">): unknown {
  if (status >= 200 && status < 300) return body;
  if (isObject(body)) throw fromProblem(status, fromWire(body) as Record<string, unknown>);
  if (status === 503) {
    throw new TensordError("server-unavailable", "Cannot use tensord: it answered 503 without a reason", { status });
  }
  const detail = `The answer is status ${status} and no problem: is this a tensord server?`;
  throw fromProblem(status, { detail });
}

function regionPath(id: string): string {
  if (!/^[A-Za-z0-9_-]{1,128}$/.test(id)) {
    throw new TensordError("validation-failed", `Cannot ask for region "${id}": it is no region id`, {
      hint: "ids begin with reg_",
    });
  }
  return `/v1/regions/${id}`;
}

function modelPath(model: string): string {
  return `/v1/models/${checkName(model, "model")}`;
}

function claimPath(model: string, name: string): string {
  return `${modelPath(model)}/regions/${checkName(name, "region")}/claim`;
}

/** Checked here because a name like ".." would be folded away, and the request would reach another route. */
function checkName(name: string, what: string): string {
  if (/^(?!\.)[A-Za-z0-9._-]{1,128}$/.test(name)) return name;
  throw new TensordError(
    "validation-failed",
    `Cannot ask for ${what} "${name}": want 1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-", not beginning with "."`,
    { hint: "write org/name as org--name" },
  );
}
