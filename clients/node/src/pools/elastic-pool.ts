/** An elastic pool as a program of JavaScript has it: its numbers, its events, and what is done to its pages. None is mapped here. */

import { inspect } from "node:util";
import * as kinds from "../check/kinds.ts";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { checkArgument } from "../check/value.ts";
import type { TensordEvent } from "../events/event.ts";
import { EventStream } from "../events/event-stream.ts";
import type { PoolApi } from "../http/pool-api.ts";
import type { Compaction, ElasticPoolDetail, MappedPages, PoolDeletion, Trim } from "../http/wire.ts";
import type {
  ChangePoolOptions,
  CreatePoolOptions,
  DescribePoolOptions,
  MapOptions,
  PoolEventOptions,
  RevisionOptions,
} from "../options.ts";
import { Operation } from "../regions/operation.ts";
import type { WaitOptions } from "../waiting.ts";

/** What happens to pages: mapped, announced to go, moved; and `tensord.stream.gap`, after which `describe` is asked again. */
export type PoolEvent = Extract<TensordEvent, { type: `tensord.vmm.${string}` | "tensord.stream.gap" }>;

/**
 * The elastic pool of a model on a device; `client.pool` makes one, whether or not the pool is there yet. No runtime of JavaScript maps
 * memory of a device: workers do, in Python or by the protocol. This says what they are to map, and what they have. Every method throws
 * `TensordError`s: `vmm-pool-not-found`, `model-not-found` among them.
 */
export class ElasticPool {
  readonly model: string;
  readonly deviceUuid: string;
  readonly #api: PoolApi;

  constructor(api: PoolApi, model: string, deviceUuid: string) {
    this.#api = api;
    this.model = model;
    this.deviceUuid = deviceUuid;
  }

  /**
   * Makes it, or finds the one that was made with the same values. It reserves a range, and maps nothing.
   * @throws TensordError `vmm-pool-exists`, `invalid-page-size`, `out-of-range`, `device-not-found`, `model-not-found`, `pool-full` …
   */
  async create(options: CreatePoolOptions): Promise<ElasticPoolDetail> {
    checkOptions("make an elastic pool", tables.createPool, options);
    const { virtualCapacity, pageSize, minimumBytes, maximumBytes, signal } = options;
    return this.#api.create(this, { virtualCapacity, pageSize, minimumBytes, maximumBytes }, signal);
  }

  /** What is mapped, what leaves, what is free, and who is attached. With a range, also whether all of it `isMapped`. */
  async describe(options: DescribePoolOptions = {}): Promise<ElasticPoolDetail> {
    checkOptions("describe an elastic pool", tables.describePool, options);
    const { byteOffset, byteSize, signal } = options;
    return this.#api.get(this, { byteOffset, byteSize }, signal);
  }

  /** Changes its limits; a maximum of null removes that. @throws TensordError `revision-mismatch`, `pool-full`, `model-limit-exceeded` */
  async change(options: ChangePoolOptions): Promise<ElasticPoolDetail> {
    checkOptions("change an elastic pool", tables.changePool, options);
    const { minimumBytes, maximumBytes } = options;
    return this.#api.change(this, { minimumBytes, maximumBytes }, options);
  }

  /**
   * Maps `byteSize` bytes, whole pages: all of them or none. Without `byteOffset` into the first hole that fits. Is the answer lost, it is not
   * asked again: `describe` says whether they are there.
   * @throws TensordError `out-of-range`, `already-mapped`, `pool-full`, `model-limit-exceeded`, `out-of-device-memory`, `deadline-exceeded`,
   *   `session-not-found` …
   */
  async map(byteSize: number, options: MapOptions = {}): Promise<MappedPages> {
    checkArgument("map pages", "the size", byteSize, kinds.bytes);
    checkOptions("map pages", tables.mapPages, options);
    const { byteOffset, session, evictable, onFull, deadlineMs, signal } = options;
    const id = typeof session === "object" ? session.id : session;
    return this.#api.map(this, { byteSize, byteOffset, session: id, evictable, onFull, deadlineMs }, signal);
  }

  /**
   * Announces that these pages go, and resolves at once: the `Operation` ends once every worker has let go of them and the memory is given
   * back. Cancelled, it maps them again, until the first is given back.
   * @throws TensordError `not-mapped`, `out-of-range`
   */
  async unmap(byteOffset: number, byteSize: number, options: WaitOptions = {}): Promise<Operation<undefined>> {
    checkArgument("unmap pages", "the offset", byteOffset, kinds.bytes);
    checkArgument("unmap pages", "the size", byteSize, kinds.bytes);
    checkOptions("unmap pages", tables.wait, options);
    return new Operation(this.#api.routes, await this.#api.unmap(this, { byteOffset, byteSize }, options.signal));
  }

  /** Gives back the pages that no worker has taken. */
  async trim(options: WaitOptions = {}): Promise<Trim> {
    checkOptions("trim an elastic pool", tables.wait, options);
    return this.#api.trim(this, options.signal);
  }

  /** Moves pages into the holes before them, their bytes with them. @throws TensordError `in-use` */
  async compact(options: WaitOptions = {}): Promise<Compaction> {
    checkOptions("compact an elastic pool", tables.wait, options);
    return this.#api.compact(this, options.signal);
  }

  /** Deletes it, and all of its pages. @throws TensordError `in-use` while a worker is attached, `revision-mismatch` */
  async delete(options: RevisionOptions = {}): Promise<PoolDeletion> {
    checkOptions("delete an elastic pool", tables.revision, options);
    return this.#api.delete(this, options);
  }

  /** What happens to its pages, as it happens, or from the event `after` on: the `sequence` of an answer, to miss nothing behind it. */
  events(options: PoolEventOptions = {}): AsyncGenerator<PoolEvent, void, undefined> {
    checkOptions("follow an elastic pool", tables.poolEvents, options);
    return this.#follow(options);
  }

  async *#follow(options: PoolEventOptions): AsyncGenerator<PoolEvent, void, undefined> {
    const wanted = { ...options, model: this.model, types: ["tensord.vmm."] };
    for await (const event of new EventStream(this.#api.routes.transport, wanted)) {
      if (event.type === "tensord.stream.gap") yield event;
      else if (isOfPages(event) && event.data.deviceUuid === this.deviceUuid) yield event;
    }
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    return `ElasticPool of ${this.model} on ${this.deviceUuid}`;
  }
}

function isOfPages(event: TensordEvent): event is Exclude<PoolEvent, { type: "tensord.stream.gap" }> {
  return event.type.startsWith("tensord.vmm.");
}
