/** The client: what a program says to one server. Each call is a line; the work is done in the files it names. */

import type { AccessOptions, EventOptions, LockOptions, SessionOptions } from "./options.ts";
import "./dispose.ts";
import { inspect } from "node:util";
import { Broker } from "./broker/broker.ts";
import * as kinds from "./check/kinds.ts";
import { checkOptions } from "./check/options.ts";
import * as tables from "./check/tables.ts";
import { checkArgument } from "./check/value.ts";
import { TensordError } from "./errors.ts";
import { EventStream } from "./events/event-stream.ts";
import { Api } from "./http/api.ts";
import { PoolApi } from "./http/pool-api.ts";
import type { Transport } from "./http/transport.ts";
import type {
  Deletion,
  Device,
  DeviceList,
  ElasticPoolDescriptor,
  Eviction,
  Lease,
  ListedRegion,
  Model,
  RegionDescriptor,
  SessionDescriptor,
  SessionEnd,
  Stats,
  Verification,
} from "./http/wire.ts";
import { checkPlatform } from "./memory/platform.ts";
import {
  type AnyRegion,
  type AttachOnDeviceOptions,
  type AttachOptions,
  type ChangeModelOptions,
  type ChangeOptions,
  type CopyOptions,
  type CreateOnDeviceOptions,
  type CreateOptions,
  defaultModel,
  type EvictOptions,
  type GetOptions,
  type GetOrCreateOptions,
  type HoldOptions,
  type ListOptions,
  type LoadModelOptions,
  type LoadOptions,
  type OperationsOptions,
  type PoolLimits,
  type PoolsOptions,
  type ReceiverOptions,
  type RegisterModelOptions,
  type RevisionOptions,
  type RingOptions,
  type SealGroupOptions,
  type UnregisterModelOptions,
} from "./options.ts";
import { ElasticPool } from "./pools/elastic-pool.ts";
import type { Asker } from "./regions/asker.ts";
import { holdOnDevice, makeOnDevice } from "./regions/device.ts";
import type { DeviceHandle } from "./regions/device-handle.ts";
import { GetOrCreate } from "./regions/get-or-create.ts";
import { type Group, openGroup, sealGroup } from "./regions/group.ts";
import { KnownSealed } from "./regions/known-sealed.ts";
import { loadAndMap, startLoad } from "./regions/load.ts";
import { makeRegion, mapExisting } from "./regions/make-region.ts";
import { findRegion, toAccess } from "./regions/mapper.ts";
import { Operation, startCopy } from "./regions/operation.ts";
import { toOwner } from "./regions/owner.ts";
import { holdPath, type PathHold } from "./regions/path-hold.ts";
import { type AnyReference, toTensorReference } from "./regions/reference.ts";
import type { Region } from "./regions/region.ts";
import type { DeviceTensors, RegionSource } from "./regions/sources.ts";
import type { OpenedTensor } from "./regions/tensor.ts";
import { mapAlone, openNow, openWhenFree } from "./rings/open-reference.ts";
import { openReceiver, type Receiver } from "./rings/receiver.ts";
import { makeRing, type Ring } from "./rings/ring.ts";
import { Rings } from "./rings/rings.ts";
import { Session } from "./session/session.ts";
import type { WaitOptions } from "./waiting.ts";

/**
 * One server's client; `connect` makes it. Closing it closes its connections and ends its event streams. Regions stay
 * mapped and their memory valid; what asks the server throws `closed` then. Every method throws `TensordError`s,
 * `server-unavailable` among them, or the reason of its `signal`.
 */
export class Client {
  readonly #transport: Transport;
  readonly #api: Api;
  readonly #asker: Asker;
  readonly #getOrCreate: GetOrCreate;
  readonly #known: KnownSealed;

  /** @param session how to open the session, or false for a client without one. */
  constructor(transport: Transport, session: SessionOptions | false) {
    this.#transport = transport;
    this.#api = new Api(transport);
    this.#asker = {
      api: this.#api,
      broker: new Broker(this.#api),
      session: session === false ? undefined : new Session(this.#api, session),
    };
    this.#getOrCreate = new GetOrCreate(this.#asker);
    this.#known = new KnownSealed(this.#asker);
  }

  /** The server's address. */
  get url(): string {
    return this.#transport.endpoint.url;
  }

  /**
   * Makes a region and maps it for writing. Others can attach it at once, and see it sealed after `seal`. `name: null`
   * makes one that is reached by id or reference only. Without an owner among the options it ends with this client's session.
   *
   * `ifExists: "attach"` maps the region that is there if names, dtypes and shapes agree (for writing if it is open, else
   * read-only) **without copying data**, and leaves `isCreated` false. If anything fails after the server made the region,
   * it is deleted again. A create whose answer is lost is repeated only with `ifExists: "attach"`, since otherwise it could
   * find its own region in the way.
   * @throws TensordError `name-taken`, `owner-required`, `validation-failed`, `pool-full`, `out-of-shared-memory` …
   */
  async create(name: string | null, data: RegionSource, options: CreateOptions = {}): Promise<Region> {
    checkArgument("create a region", "its name", name, kinds.nameOrNull);
    checkOptions("create a region", tables.create, options);
    checkPlatform("create a region");
    return makeRegion(this.#asker, name, data, options);
  }

  /**
   * The region of that name, sealed and mapped for reading. Of all processes that ask for a name that is not there, one
   * builds it and the others wait. If the builder dies, or `build` throws, the next in line builds. Without an owner among
   * the options the region lingers for 10 minutes after its last use. What is there is found though the code that builds it has
   * changed since: `isCreated` tells whether this call has built it, `ageMs` how old it is, and `rebuild` builds it anew. After an abort what `build` returns is thrown away,
   * and the next in line builds.
   * @throws TensordError `deadline-exceeded` if others build for longer than `timeoutMs`; what `build` throws
   */
  async getOrCreate(
    name: string,
    build: () => RegionSource | Promise<RegionSource>,
    options: GetOrCreateOptions = {},
  ): Promise<Region> {
    checkArgument("get or create a region", "its name", name, kinds.text);
    checkArgument("get or create a region", "what builds it", build, kinds.callback());
    checkOptions("get or create a region", tables.getOrCreate, options);
    checkPlatform("get or create a region");
    return this.#getOrCreate.run(name, build, options);
  }

  /**
   * Makes a ring: a region cut into slots for tensors that go to other processes by reference, without the server. It ends
   * as any region does, by default with this client's session.
   */
  async ring(options: RingOptions = {}): Promise<Ring> {
    checkOptions("make a ring", tables.ring, options);
    checkPlatform("make a ring");
    return makeRing(this.#asker, options);
  }

  /**
   * Maps a region that exists, by its name in `model` and its `version`, or by a descriptor in hand, which costs no request;
   * a list's item costs one. Without a version the name means the newest that is sealed, or, where none is, the newest.
   * Without a timeout it is mapped at once, open or sealed; an open one shows what its writers write. A sealed version that this
   * client has attached before costs no request as long as it stands, and `descriptor` is what the server said of it then.
   * @throws TensordError `region-not-found`; `region-not-sealed` if the time ends with an open region; `region-sealed` for
   *   a writer; `wrong-namespace` if this process sees another file system than the server; `access-denied`
   */
  attach(region: string | RegionDescriptor | ListedRegion, options?: AttachOptions): Promise<Region>;
  /**
   * Maps a group: up to 1,000 names, all as they are in one turn of the server, so that what `client.seal` changed together
   * is met together, all of the old or all of the new. The options count for each of them.
   */
  attach(names: readonly string[], options?: AttachOptions): Promise<Group>;
  async attach(
    region: string | readonly string[] | RegionDescriptor | ListedRegion,
    options: AttachOptions = {},
  ): Promise<Region | Group> {
    checkArgument("attach a region", "what should be one", region, kinds.nameOrRegion);
    checkOptions("attach a region", tables.attach, options);
    checkPlatform("attach a region");
    const { model = defaultModel, version, timeoutMs = 0, writable = false, strict = false, signal } = options;
    const access = toAccess(options);
    if (isList(region)) {
      return openGroup(this.#asker, { model, names: region, version }, { timeoutMs, writable, strict, signal });
    }
    if (typeof region !== "string") {
      const ask = () => this.#api.region(region.id, signal);
      return mapExisting(this.#asker, isWhole(region) ? region : await ask(), () => access, ask);
    }
    const named = { model, name: region, version };
    const find = async () =>
      this.#known.note(named, await findRegion(this.#api, named, { timeoutMs, isWriter: writable, signal }));
    const known = writable ? undefined : this.#known.get(named);
    if (known !== undefined) signal?.throwIfAborted();
    return mapExisting(this.#asker, known ?? (await find()), () => access, find);
  }

  /**
   * Keeps a region in use while something in this process reads its file by path: an engine that maps it, as ONNX Runtime and
   * llama.cpp do, takes no lease, and what nobody leases may be evicted, or end with its owner. `using held = await client.hold(name)`,
   * and `held.path` until what was loaded from it was let go. It needs address space of the region's size, and no memory.
   * @throws TensordError as `attach`; `feature-unavailable` of `heap` storage and of memory on a device
   */
  async hold(region: string | RegionDescriptor | ListedRegion, options: HoldOptions = {}): Promise<PathHold> {
    checkArgument("hold a region", "what should be one", region, kinds.nameOrOneRegion);
    checkOptions("hold a region", tables.hold, options);
    checkPlatform("hold a region");
    const { model = defaultModel, version, timeoutMs = 0, signal } = options;
    const find = () =>
      typeof region === "string"
        ? findRegion(this.#api, { model, name: region, version }, { timeoutMs, isWriter: false, signal })
        : this.#api.region(region.id, signal);
    return holdPath(this.#asker, find, signal);
  }

  /**
   * Leases a region in the memory of a device, by its name or a descriptor as `attach`, and maps nothing: no runtime of JavaScript
   * reaches that memory. What comes back has the driver's descriptor, for a native addon that imports it, and says where the
   * tensors lie. Close it after the memory was unmapped.
   * @throws TensordError `feature-unavailable` of a region in host memory; as `attach`; `wrong-namespace` without the broker
   */
  async attachOnDevice(
    region: string | RegionDescriptor | ListedRegion,
    options: AttachOnDeviceOptions = {},
  ): Promise<DeviceHandle> {
    checkArgument("attach a region on a device", "what should be one", region, kinds.nameOrOneRegion);
    checkOptions("attach a region on a device", tables.attachOnDevice, options);
    checkPlatform("attach a region on a device");
    const { model = defaultModel, version, timeoutMs = 0, writable: isWriter = false, signal } = options;
    if (typeof region !== "string") {
      const ask = () => this.#api.region(region.id, signal);
      return holdOnDevice(this.#asker, isWhole(region) ? region : await ask(), { ask, isWriter, signal });
    }
    const ask = () => findRegion(this.#api, { model, name: region, version }, { timeoutMs, isWriter, signal });
    return holdOnDevice(this.#asker, await ask(), { ask, isWriter, signal });
  }

  /**
   * Makes a region in the memory of a device, of tensors without content, and leases it for writing as `attachOnDevice` does: a native
   * addon writes. Then close it, and `client.seal([handle])`. Options and the region's end as for `create`.
   * @throws TensordError `storage-unavailable` of a server without a device; `validation-failed` if there are several and none is
   *   named; as `create` and `attachOnDevice`
   */
  async createOnDevice(
    name: string | null,
    tensors: DeviceTensors,
    options: CreateOnDeviceOptions = {},
  ): Promise<DeviceHandle> {
    checkArgument("create a region on a device", "its name", name, kinds.nameOrNull);
    checkOptions("create a region on a device", tables.createOnDevice, options);
    checkPlatform("create a region on a device");
    return makeOnDevice(this.#asker, name, tensors, options);
  }

  /**
   * Seals a group, up to 1,000 regions of one model, in one turn: all or none. Names that they take over
   * (`ifExists: "replace"`) change hands together, so that who attaches all of them meets one version. A `Region` that this
   * process maps gives up writing as `Region.seal` does; nobody may map another one, named by its descriptor or id, for writing.
   * If one is refused, which the error names, every one stays open, and writable here.
   * @returns their descriptors, in order, without tensors for those that are not mapped here
   * @throws TensordError as `Region.seal`; `validation-failed` for two models, or two regions that would have one name
   */
  async seal(regions: readonly AnyRegion[], options: SealGroupOptions = {}): Promise<readonly ListedRegion[]> {
    checkArgument("seal a group", "what should be one", regions, kinds.listOf(kinds.region));
    checkOptions("seal a group", tables.sealGroup, options);
    return sealGroup(this.#asker, regions, options);
  }

  /**
   * Maps one tensor from a reference. Asks no server, so it works while there is none; but a region without a name here (private,
   * in `memfd`, of another mount namespace) is asked of the server's broker, for a second at most. The caller closes it. A tensor of a
   * ring is locked until then: its owner does not touch the slot, and afterwards fills it anew.
   * @throws TensordError `stale-ref` if the file, or the slot's content, is not the one meant; `region-sealed` for a writer;
   *   `access-denied`; `deadline-exceeded` if another process writes into the slot: `openWhenFree` waits
   */
  open(reference: AnyReference, options: AccessOptions = {}): OpenedTensor {
    checkOptions("open a tensor", tables.access, options);
    checkPlatform("open a tensor");
    return openNow(this.#asker, toTensorReference(reference), toAccess(options), mapAlone(this.#asker));
  }

  /**
   * As `open`, and waits while another process has the ring's slot locked. It asks the server, where there is one, before it
   * says that a region is gone: a stock reader's exit unlinks the file of one that stands, and the server links it back.
   */
  async openWhenFree(reference: AnyReference, options: AccessOptions & LockOptions = {}): Promise<OpenedTensor> {
    checkOptions("open a tensor", tables.openWhenFree, options);
    checkPlatform("open a tensor");
    return openWhenFree(this.#asker, toTensorReference(reference), toAccess(options), mapAlone(this.#asker), options);
  }

  /** Opens references of rings as `open` does, and keeps the rings mapped in between: for who opens many. */
  rings(): Rings {
    checkPlatform("open rings");
    return new Rings(this.#asker);
  }

  /**
   * Receives what the owner of a ring sends: `reference` is its `ring.ref()`. Asks no server, as `open`. With `writable` it takes requests too,
   * which it answers in their slots. It begins with the oldest message that is still there, or, with `onlyNew`, with the next one that is sent.
   * The caller closes it.
   * @throws TensordError `stale-ref` if the ring is gone; `validation-failed` if the reference is of something else, as of a slot;
   *   `feature-unavailable` for a ring of a later layout; `access-denied`
   */
  receiver(reference: AnyReference, options: ReceiverOptions = {}): Receiver {
    checkOptions("receive from a ring", tables.receiver, options);
    checkPlatform("receive from a ring");
    return openReceiver(this.#asker, toTensorReference(reference), options);
  }

  /** The region of that name and `version`, or as `attach` without one. @throws TensordError `region-not-found` */
  async get(name: string, options: GetOptions = {}): Promise<RegionDescriptor> {
    checkArgument("get a region", "its name", name, kinds.text);
    checkOptions("get a region", tables.get, options);
    const { model = defaultModel, version, signal } = options;
    return this.#api.regionByName({ model, name, version }, { signal });
  }

  /** The region with that id, as it is now. @throws TensordError `region-not-found` */
  async getById(id: string, options: WaitOptions = {}): Promise<RegionDescriptor> {
    checkArgument("get a region", "its id", id, kinds.text);
    checkOptions("get a region", tables.wait, options);
    return this.#api.region(id, options.signal);
  }

  /** All regions that match, page by page as they are consumed. */
  list(options: ListOptions = {}): AsyncGenerator<ListedRegion, void, undefined> {
    checkOptions("list regions", tables.list, options);
    const { model, name, version, state, session, label, signal } = options;
    const owner = session === undefined ? undefined : idOf(session);
    return this.#api.regions({ model, name, version, state, session: owner, label: label?.join("=") }, signal);
  }

  /** Changes a region's owner, whether it may be evicted, or its labels. @throws TensordError `revision-mismatch` */
  async change(region: AnyRegion, options: ChangeOptions): Promise<RegionDescriptor> {
    checkArgument("change a region", "it", region, kinds.region);
    checkOptions("change a region", tables.change, options);
    const { evictable, labels } = options;
    return this.#api.changeRegion(idOf(region), { ...toOwner(options), evictable, labels }, options);
  }

  /**
   * Has the server recompute a sealed region's checksum and compare it with the one taken at its seal.
   * @throws TensordError `region-not-sealed`
   */
  async verify(region: AnyRegion, options: WaitOptions = {}): Promise<Verification> {
    checkArgument("verify a region", "it", region, kinds.region);
    checkOptions("verify a region", tables.wait, options);
    return this.#api.verify(idOf(region), options.signal);
  }

  /**
   * Deletes a region. Its name is free at once; its memory when the last process that maps it lets go.
   * @throws TensordError `revision-mismatch`
   */
  async delete(region: AnyRegion, options: RevisionOptions = {}): Promise<Deletion> {
    checkArgument("delete a region", "it", region, kinds.region);
    checkOptions("delete a region", tables.revision, options);
    return this.#api.deleteRegion(idOf(region), options);
  }

  /**
   * Frees that many bytes beyond what is free, of regions that are evictable, sealed and mapped by nobody; least recently
   * used first. @returns what went, what stayed and why; with `dryRun` what would go
   */
  async evict(byteSize: number, options: EvictOptions = {}): Promise<Eviction> {
    checkArgument("evict", "the size", byteSize, kinds.bytes);
    checkOptions("evict", tables.evict, options);
    const { model, pool, dryRun, signal } = options;
    return this.#api.evict({ bytes: byteSize, model, pool, dryRun }, signal);
  }

  /**
   * Has the server copy a sealed region into a new one, of any storage, and resolves at once: the `Operation` goes on by itself, and
   * its `wait` is its end. The copy is read back, compared, and there only when it is whole and sealed; its source is kept until then.
   * Without an owner among the options it ends with this client's session.
   * @throws TensordError `region-not-found`, `region-not-sealed`, `storage-unavailable`; what goes wrong later, `wait` throws
   */
  async copy(region: AnyRegion, options: CopyOptions = {}): Promise<Operation<RegionDescriptor>> {
    checkArgument("copy a region", "it", region, kinds.region);
    checkOptions("copy a region", tables.copy, options);
    return startCopy(this.#asker, idOf(region), options);
  }

  /**
   * Has the server load a model file into a region, and resolves at once: the `Operation` goes on by itself, and its `wait` is its end.
   * Safetensors, GGUF, `.npy` and `.npz`, each also compressed as a whole by gzip or zstd, and with `raw` any file, are kept byte for
   * byte; a model in several files is one region, by its `.safetensors.index.json`. `path` is as the server sees it, below one of the folders of its `TENSORD_MODEL_ROOTS`, or the URI of an object, `s3://bucket/key`, below one of its prefixes. Who loads the same file gets the same
   * region, unless a `version` is said: it stands for the state of the file. Without an owner among the options the region lingers for
   * 10 minutes after its last use.
   * @throws TensordError `forbidden` for a path below no root, `model-not-found`, `storage-unavailable`; what goes wrong later, `wait`
   *   throws: `invalid-model-file`, `unsupported-format`, `io-error`, `source-unavailable`
   */
  async load(path: string, options: LoadOptions = {}): Promise<Operation<RegionDescriptor>> {
    checkArgument("load a model file", "its path", path, kinds.text);
    checkOptions("load a model file", tables.load, options);
    return startLoad(this.#asker, path, options);
  }

  /**
   * Loads a model file as `load` does, waits for its end, and maps the region for reading. Of N workers that ask one load is made, and
   * all share it. After an abort, or when `timeoutMs` is over, the load is cancelled.
   * @throws TensordError as `load`, `Operation.wait` and `attach`
   */
  async loadModel(path: string, options: LoadModelOptions = {}): Promise<Region> {
    checkArgument("load a model file", "its path", path, kinds.text);
    checkOptions("load a model file", tables.loadModel, options);
    checkPlatform("load a model file");
    return loadAndMap(this.#asker, path, options);
  }

  /** The operations that run, and those that ended a while ago, everybody's, page by page as they are consumed. */
  operations(options: OperationsOptions = {}): AsyncGenerator<Operation, void, undefined> {
    checkOptions("list operations", tables.operations, options);
    return listOperations(this.#api, options);
  }

  /** The operation with that id, as it is now. @throws TensordError `operation-not-found` */
  async operation(id: string, options: WaitOptions = {}): Promise<Operation> {
    checkArgument("get an operation", "its id", id, kinds.text);
    checkOptions("get an operation", tables.wait, options);
    return new Operation(this.#api, await this.#api.operation(id, options));
  }

  /** A region's leases by request, page by page as they are consumed. `holders` of a descriptor says who maps it. */
  leases(region: AnyRegion, options: WaitOptions = {}): AsyncGenerator<Lease, void, undefined> {
    checkArgument("list a region's leases", "it", region, kinds.region);
    checkOptions("list a region's leases", tables.wait, options);
    return this.#api.leases(idOf(region), options.signal);
  }

  /** All models, page by page as they are consumed. */
  models(options: WaitOptions = {}): AsyncGenerator<Model, void, undefined> {
    checkOptions("list models", tables.wait, options);
    return this.#api.models(options.signal);
  }

  /** One model with its books. @throws TensordError `model-not-found` */
  async model(name: string, options: WaitOptions = {}): Promise<Model> {
    checkArgument("get a model", "its name", name, kinds.text);
    checkOptions("get a model", tables.wait, options);
    return this.#api.model(name, options.signal);
  }

  /** Registers a model, with limits of its own. @throws TensordError `model-exists` */
  async registerModel(name: string, options: RegisterModelOptions = {}): Promise<Model> {
    checkArgument("register a model", "its name", name, kinds.text);
    checkOptions("register a model", tables.registerModel, options);
    const { memoryLimitBytes, limits, signal } = options;
    return this.#api.registerModel({ name, memoryLimitBytes, limits: toPoolLimits(limits) }, signal);
  }

  /** Changes a model's limits; null removes one. @throws TensordError `model-not-found` */
  async changeModel(name: string, options: ChangeModelOptions): Promise<Model> {
    checkArgument("change a model", "its name", name, kinds.text);
    checkOptions("change a model", tables.changeModel, options);
    const { memoryLimitBytes, limits } = options;
    return this.#api.changeModel(name, { memoryLimitBytes, limits: toPoolLimits(limits) }, options);
  }

  /** Unregisters a model; `drain` deletes its regions with it. @throws TensordError `model-in-use`, `model-not-found` */
  async unregisterModel(name: string, options: UnregisterModelOptions = {}): Promise<Deletion> {
    checkArgument("unregister a model", "its name", name, kinds.text);
    checkOptions("unregister a model", tables.unregisterModel, options);
    return this.#api.unregisterModel(name, options.drain === true, options);
  }

  /** The server's books: bytes, inodes, regions by state, models. */
  async stats(options: WaitOptions = {}): Promise<Stats> {
    checkOptions("get the books", tables.wait, options);
    return this.#api.stats(options.signal);
  }

  /** The GPUs of the server's host: what each has and what is taken of it, and why one cannot be used. */
  async devices(options: WaitOptions = {}): Promise<DeviceList> {
    checkOptions("list devices", tables.wait, options);
    return this.#api.devices(options.signal);
  }

  /** One of them, by its UUID. @throws TensordError `device-not-found` */
  async device(uuid: string, options: WaitOptions = {}): Promise<Device> {
    checkArgument("get a device", "its UUID", uuid, kinds.text);
    checkOptions("get a device", tables.wait, options);
    return this.#api.device(uuid, options.signal);
  }

  /** Elastic pools in the order in which they were made, with their sums, page by page as they are consumed. */
  pools(options: PoolsOptions = {}): AsyncGenerator<ElasticPoolDescriptor, void, undefined> {
    checkOptions("list elastic pools", tables.pools, options);
    return new PoolApi(this.#api).list(options.model, options.signal);
  }

  /** The elastic pool of a model on a device, to be made or asked about: no server is asked yet. Its pages are not mapped here. */
  pool(model: string, deviceUuid: string): ElasticPool {
    checkArgument("name an elastic pool", "its model", model, kinds.text);
    checkArgument("name an elastic pool", "its device", deviceUuid, kinds.text);
    return new ElasticPool(new PoolApi(this.#api), model, deviceUuid);
  }

  /**
   * This client's session as the server sees it, opened if there is none yet. What is created without another owner ends
   * with it; it ends with this process, however that ends, and with `close`.
   * @throws TensordError `feature-unavailable` if the client was connected without one
   */
  async session(options: WaitOptions = {}): Promise<SessionDescriptor> {
    checkOptions("describe the session", tables.wait, options);
    if (this.#asker.session !== undefined) return this.#asker.session.describe(options.signal);
    throw new TensordError("feature-unavailable", "Cannot describe the session: this client has none", {
      hint: "connect without { session: false }",
    });
  }

  /** Ends the session, if there is one, with all that it owns; the next use opens another. @returns what ended with it */
  async endSession(options: WaitOptions = {}): Promise<SessionEnd | undefined> {
    checkOptions("end the session", tables.wait, options);
    return await this.#asker.session?.end(options.signal);
  }

  /** All sessions, of every process, page by page as they are consumed. */
  sessions(options: WaitOptions = {}): AsyncGenerator<SessionDescriptor, void, undefined> {
    checkOptions("list sessions", tables.wait, options);
    return this.#api.sessions(options.signal);
  }

  /**
   * What happens to regions, sessions and models, as it happens, or from the event `after` on. It connects when it is iterated, and
   * goes on after a restart of the server.
   */
  events(options: EventOptions = {}): EventStream {
    checkOptions("follow the events", tables.events, options);
    return new EventStream(this.#transport, options);
  }

  /** Closes the connections, which ends the session. Safe to call twice. Regions stay mapped. */
  close(): void {
    this.#known.clear();
    this.#asker.session?.close();
    this.#transport.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    return `Client of ${this.url}${this.#transport.closed.aborted ? ", closed" : ""}`;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `close`, and waits until the session and what it owns have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.endSession().finally(() => this.close());
  }
}

async function* listOperations(api: Api, { model, state, signal }: OperationsOptions) {
  for await (const each of api.operations({ model, state }, signal)) yield new Operation(api, each);
}

/** `Array.isArray` takes no list that may not be written to. */
function isList(region: unknown): region is readonly string[] {
  return Array.isArray(region);
}

/** Whether it is a descriptor with its tensors: an item of a list has none, and a `Region` shows its own. */
function isWhole(region: RegionDescriptor | ListedRegion): region is RegionDescriptor {
  return "tensors" in region && Array.isArray(region.tensors);
}

function toPoolLimits(limits: PoolLimits = {}) {
  const all = Object.entries(limits).map(([pool, limitBytes]) => ({ pool, limitBytes }));
  // None is refused by the server as a list of nothing.
  return all.length === 0 ? undefined : all;
}

function idOf(named: string | { readonly id: string }): string {
  return typeof named === "string" ? named : named.id;
}
