/** The server's routes of elastic pools, one method each. */

import { isTensordError } from "../errors.ts";
import type { Api, Revising } from "./api.ts";
import type { Body, Operation, Parameters } from "./operation.ts";
import {
  type Compaction,
  type ElasticPoolDescriptor,
  type ElasticPoolDetail,
  expectSuccess,
  type MappedPages,
  type OperationDescriptor,
  type PoolDeletion,
  parseObject,
  type Trim,
} from "./wire.ts";

const path = "/v1/models/{model}/vmm/{device_uuid}";
type Path = typeof path;

/** Which pool. */
export interface NamedPool {
  readonly model: string;
  readonly deviceUuid: string;
}

const partsOf = ({ model, deviceUuid }: NamedPool) => ({ model, device_uuid: deviceUuid });
type Signal = AbortSignal | undefined;

export class PoolApi {
  readonly routes: Api;

  constructor(routes: Api) {
    this.routes = routes;
  }

  async *list(model: string | undefined, signal: Signal): AsyncGenerator<ElasticPoolDescriptor, void, undefined> {
    for await (const item of this.routes.pages("/v1/vmm", { model }, signal)) yield parseObject(item);
  }

  create(pool: NamedPool, body: Body<Operation<"PUT", Path>>, signal: Signal): Promise<ElasticPoolDetail> {
    return this.routes.ask("PUT", path, { path: partsOf(pool), body, isRepeatable: true, signal });
  }

  get(
    pool: NamedPool,
    { byteOffset, byteSize }: { readonly byteOffset?: number | undefined; readonly byteSize?: number | undefined },
    signal: Signal,
  ): Promise<ElasticPoolDetail> {
    const query: Parameters<Operation<"GET", Path>>["query"] = { byte_offset: byteOffset, byte_size: byteSize };
    return this.routes.ask("GET", path, { path: partsOf(pool), query, isRepeatable: true, signal });
  }

  change(
    pool: NamedPool,
    body: Body<Operation<"PATCH", Path>>,
    { ifMatch, signal }: Revising,
  ): Promise<ElasticPoolDetail> {
    const request = { path: partsOf(pool), body, isRepeatable: ifMatch === undefined, ifMatch, signal };
    return this.routes.ask("PATCH", path, request);
  }

  async delete(pool: NamedPool, { ifMatch, signal }: Revising): Promise<PoolDeletion> {
    const request = { path: partsOf(pool), isRepeatable: true, ifMatch, signal };
    const reply = await this.routes.send("DELETE", path, request);
    try {
      return parseObject(expectSuccess(reply));
    } catch (error) {
      if (reply.isRepeated && isTensordError(error, "vmm-pool-not-found")) return { state: "deleted", freedBytes: 0 };
      throw error;
    }
  }

  /** A repeat after a lost answer would map as much again, or find its own pages in the way. */
  map(pool: NamedPool, body: Body<Operation<"POST", `${Path}/map`>>, signal: Signal): Promise<MappedPages> {
    const answerMs = 600_000 + (body.deadlineMs ?? 0);
    return this.routes.ask("POST", `${path}/map`, { path: partsOf(pool), body, isRepeatable: false, answerMs, signal });
  }

  unmap(pool: NamedPool, body: Body<Operation<"POST", `${Path}/unmap`>>, signal: Signal): Promise<OperationDescriptor> {
    return this.routes.ask("POST", `${path}/unmap`, { path: partsOf(pool), body, isRepeatable: false, signal });
  }

  trim(pool: NamedPool, signal: Signal): Promise<Trim> {
    return this.routes.ask("POST", `${path}/trim`, { path: partsOf(pool), isRepeatable: true, signal });
  }

  /** The moves of a lost answer are in the events. */
  compact(pool: NamedPool, signal: Signal): Promise<Compaction> {
    return this.routes.ask("POST", `${path}/compact`, { path: partsOf(pool), isRepeatable: true, signal });
  }
}
