/** The client: what a program says to one server. Regions are made, found and mapped here. */

import "./dispose.ts";
import { Api } from "./api.ts";
import { type EventOptions, EventStream } from "./event-stream.ts";
import { type AccessOptions, findRegion, type MappedRegion, mapRegion, openReference, toAccess } from "./mapper.ts";
import type { Access } from "./mapping.ts";
import type { TensorReference } from "./reference.ts";
import { Region } from "./region.ts";
import { copyTo, type RegionSource, type Source, toSources, toSpecs } from "./sources.ts";
import type { OpenedTensor } from "./tensor.ts";
import type { Transport } from "./transport.ts";
import type { Deletion, Model, RegionDescriptor, Stats, Verification } from "./wire.ts";

const defaultModel = "default";

/** A region is named by its name and model where it is looked up, and by one of these elsewhere. */
export type AnyRegion = string | { readonly id: string };

/** What decides a region's end: so long after now, or only a `delete`, which needs a name. */
export type Owner =
  | { readonly ttlMs: number; readonly persist?: undefined }
  | { readonly persist: true; readonly ttlMs?: undefined };

export type CreateOptions = Owner & {
  readonly model?: string;
  /** What a taken name means: an error, the region that is there, or to take the name over when this region is sealed. */
  readonly ifExists?: "fail" | "attach" | "replace";
  readonly labels?: Readonly<Record<string, string>>;
};

export interface AttachOptions extends AccessOptions {
  readonly model?: string;
  /** How long to wait: a reader until the region is there *and sealed*, a writer until it is there. */
  readonly timeoutMs?: number;
}

export interface ListOptions {
  readonly model?: string;
  readonly name?: string;
  readonly state?: RegionDescriptor["state"];
  /** A key and its value. */
  readonly label?: readonly [string, string];
}

export type PatchOptions = (Owner | { readonly ttlMs?: undefined; readonly persist?: undefined }) & {
  /** Those named; null removes one. */
  readonly labels?: Readonly<Record<string, string | null>>;
};

/**
 * One server's client; `connect` makes it. Closing it closes its connections and ends its event streams. Regions stay
 * mapped and their memory valid; what asks the server throws `closed` then. Every method throws `TensordError`s,
 * `server-unavailable` among them.
 */
export class Client {
  readonly #transport: Transport;
  readonly #api: Api;

  constructor(transport: Transport) {
    this.#transport = transport;
    this.#api = new Api(transport);
  }

  /** The server's address. */
  get url(): string {
    return this.#transport.endpoint.url;
  }

  /**
   * Makes a region and maps it for writing. Others can attach it at once, and see it sealed after `seal`. `name: null`
   * makes one that is reached by id or reference only.
   *
   * `ifExists: "attach"` maps the region that is there if names, dtypes and shapes agree (for writing if it is open, else
   * read-only) **without copying data**, and leaves `isCreated` false. If anything fails after the server made the region,
   * it is deleted again. A create whose answer is lost is repeated only with `ifExists: "attach"`, since otherwise it could
   * find its own region in the way.
   * @throws TensordError `name-taken`, `owner-required`, `validation-failed`, `pool-full`, `out-of-shared-memory` …
   */
  async create(name: string | null, data: RegionSource, options: CreateOptions): Promise<Region> {
    const { model = defaultModel, ifExists = "fail", ttlMs, persist, labels } = options;
    const sources = toSources(data);
    const tensors = toSpecs(sources);
    const body = { model, name: name ?? undefined, tensors, ifExists, ttlMs, persist, labels };
    const { region, isCreated } = await this.#api.createRegion(body);
    if (!isCreated) return this.#map(region, ({ state }) => toAccess({ writable: state === "open" }));
    try {
      const mapped = await mapRegion(
        region,
        () => this.#api.region(region.id),
        () => "write",
      );
      await fill(mapped, sources);
      return new Region(this.#api, mapped.region, mapped.attachment, true);
    } catch (error) {
      // Nobody may find a half-written region under the name; the failure itself is what counts.
      await this.#api.deleteRegion(region.id).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Maps a region that exists, by its name in `model`, or by a descriptor in hand, which costs no request. Without a
   * timeout it is mapped at once, open or sealed; an open one shows what its writers write.
   * @throws TensordError `region-not-found`; `region-not-sealed` if the time ends with an open region; `region-sealed` for
   *   a writer; `wrong-namespace` if this process sees another file system than the server; `access-denied`
   */
  async attach(region: string | RegionDescriptor, options: AttachOptions = {}): Promise<Region> {
    const { model = defaultModel, timeoutMs = 0, writable = false } = options;
    const access = toAccess(options);
    if (typeof region !== "string") return this.#map(region, () => access);
    const find = () => findRegion(this.#api, model, region, timeoutMs, writable);
    return this.#map(await find(), () => access, find);
  }

  /**
   * Maps one tensor from a reference. Asks no server, so it works while there is none. The caller closes it.
   * @throws TensordError `stale-ref` if the file is not the one meant; `region-sealed` for a writer; `access-denied`
   */
  open(reference: TensorReference, options: AccessOptions = {}): OpenedTensor {
    return openReference(reference, toAccess(options));
  }

  /** The region of that name, as it is now. @throws TensordError `region-not-found` */
  get(name: string, { model = defaultModel }: { readonly model?: string } = {}): Promise<RegionDescriptor> {
    return this.#api.regionByName(model, name);
  }

  /** The region with that id, as it is now. @throws TensordError `region-not-found` */
  getById(id: string): Promise<RegionDescriptor> {
    return this.#api.region(id);
  }

  /** All regions that match, page by page as they are consumed. */
  list({ label, ...options }: ListOptions = {}): AsyncGenerator<RegionDescriptor, void, undefined> {
    return this.#api.regions({ ...options, ...(label === undefined ? {} : { label: label.join("=") }) });
  }

  /** Changes a region's owner, or its labels. */
  patch(region: AnyRegion, { ttlMs, persist, labels }: PatchOptions): Promise<RegionDescriptor> {
    return this.#api.patchRegion(idOf(region), { ttlMs, persist, labels });
  }

  /**
   * Has the server recompute a sealed region's checksum and compare it with the one taken at its seal.
   * @throws TensordError `region-not-sealed`
   */
  verify(region: AnyRegion): Promise<Verification> {
    return this.#api.verify(idOf(region));
  }

  /** Deletes a region. Its name is free at once; its memory when the last process that maps it lets go. */
  delete(region: AnyRegion): Promise<Deletion> {
    return this.#api.deleteRegion(idOf(region));
  }

  /** All models, page by page as they are consumed. */
  models(): AsyncGenerator<Model, void, undefined> {
    return this.#api.models();
  }

  /** One model with its books. @throws TensordError `model-not-found` */
  model(name: string): Promise<Model> {
    return this.#api.model(name);
  }

  /** Registers a model, a pool with a limit of its own. @throws TensordError `model-exists` */
  createModel(name: string, options: { readonly memoryLimitBytes?: number } = {}): Promise<Model> {
    return this.#api.createModel({ name, memoryLimitBytes: options.memoryLimitBytes });
  }

  /** Changes a model's limit; null removes it. @throws TensordError `model-not-found` */
  patchModel(name: string, { memoryLimitBytes }: { readonly memoryLimitBytes: number | null }): Promise<Model> {
    return this.#api.patchModel(name, { memoryLimitBytes });
  }

  /** Unregisters a model; `drain` deletes its regions with it. @throws TensordError `model-in-use`, `model-not-found` */
  deleteModel(name: string, { drain = false }: { readonly drain?: boolean } = {}): Promise<Deletion> {
    return this.#api.deleteModel(name, drain);
  }

  /** The server's books: bytes, inodes, regions by state, models. */
  stats(): Promise<Stats> {
    return this.#api.stats();
  }

  /**
   * What happens to regions and models, as it happens, or from the event `after` on. It connects when it is iterated, and
   * goes on after a restart of the server.
   */
  events(options: EventOptions = {}): EventStream {
    return new EventStream(this.#transport, options);
  }

  /** Closes the connections. Safe to call twice. Regions stay mapped. */
  close(): void {
    this.#transport.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Maps a region, which `ask` gets anew, else its id does. */
  async #map(
    first: RegionDescriptor,
    choose: (region: RegionDescriptor) => Access,
    ask = () => this.#api.region(first.id),
  ): Promise<Region> {
    const { region, attachment } = await mapRegion(first, ask, choose);
    return new Region(this.#api, region, attachment, false);
  }
}

/** Copies the sources into their tensors. Lets go of the region if it fails. */
async function fill({ region, attachment }: MappedRegion, sources: readonly Source[]): Promise<void> {
  const offsets = new Map(region.tensors.map(({ name, byteOffset }) => [name, byteOffset]));
  try {
    for (const { name, bytes } of sources) {
      const offset = offsets.get(name);
      if (bytes === undefined || offset === undefined) continue;
      await copyTo((start, size) => attachment.mapping.addressOf(offset + start, size), bytes);
    }
  } catch (error) {
    attachment.close();
    throw error;
  }
}

function idOf(region: AnyRegion): string {
  return typeof region === "string" ? region : region.id;
}
