/**
 * What is said over one connection to the broker: the greeting, descriptors that are asked for and given back, and the session
 * that the connection holds. Each request is answered in the turn in which it is looked at, but for one whose descriptor a device's driver has to make.
 * It knows no socket.
 */

import { closeSync } from "node:fs";
import type { z } from "@hono/zod-openapi";
import { TensordError } from "../../memory/error.ts";
import { brokerVersion } from "../../memory/host/capabilities.ts";
import { ownPidNamespace } from "../../memory/host/process-id.ts";
import { idOf } from "../../memory/journal/region-record.ts";
import type { ClientFacts } from "../../memory/journal/session-record.ts";
import { limits } from "../../memory/limits.ts";
import type { LeaseKind } from "../../memory/os/kernel-lease.ts";
import type { Peer } from "../../memory/os/libc-unix.ts";
import { noteFetch, noteHandedOut, reportAttach, reportDetach } from "../../memory/regions/consumers.ts";
import { regionByName } from "../../memory/regions/find.ts";
import { type HandOut, handOut, handOutOnDevice, openTensors } from "../../memory/regions/hand-out.ts";
import { inspectName } from "../../memory/regions/public-name.ts";
import { holdSession, openSession } from "../../memory/sessions/sessions.ts";
import { defaultModelName } from "../../memory/state/books.ts";
import type { Region } from "../../memory/state/region.ts";
import type { Session } from "../../memory/state/session.ts";
import type { Store } from "../../memory/state/store.ts";
import type { DataAccess } from "../../memory/storage/data-file.ts";
import type { DeviceAccess } from "../../memory/storage/storage.ts";
import type { Caller } from "../../routes/access/caller.ts";
import { accessSession, checkModel, checkRegionAccess } from "../../routes/access/checks.ts";
import { mayEver, reachOf } from "../../routes/access/rights.ts";
import { takeReport } from "../../routes/hold.ts";
import type { ClientRequest } from "../../routes/schemas/requests.ts";
import { toRegionFacts, toSession } from "../../routes/to-wire.ts";
import type { Authority } from "../access/authority.ts";
import { type BrokerAnswer, toAnswer } from "./answer.ts";
import type { Handed } from "./fast-lane.ts";
import type { Frame } from "./frames.ts";
import { PoolDesk } from "./pool-desk.ts";
import {
  type AttachRequest,
  type HelloRequest,
  parseRequest,
  type ReleaseRequest,
  type ReportRequest,
} from "./requests.ts";

/** Who finds out who somebody is. */
export type BrokerAccess = Pick<Authority, "authenticate" | "issue">;

export class Conversation {
  readonly #store: Store;
  readonly #peer: Peer;
  readonly #access: BrokerAccess;
  /** Ends the connection, which then says so by `ended`. */
  readonly #close: () => void;
  /** Who it is, once that was said. */
  #caller: Caller | undefined;
  /** What its process calls itself. */
  #clientName: string | null = null;
  #session: Session | undefined;
  #release: ((closedBy: "peer" | "server") => void) | undefined;
  /** Set when we end it: that the connection then ends is no sign of the worker's death. */
  #isOurs = false;
  readonly #pools: PoolDesk;

  constructor(store: Store, peer: Peer, close: () => void, access: BrokerAccess) {
    this.#store = store;
    this.#pools = new PoolDesk(store);
    this.#peer = peer;
    this.#close = close;
    this.#access = access;
  }

  /** What may be handed out to it by ticket, without a look at the region: nothing where it hangs on which region that is. */
  get reach(): "none" | "reading" | "writing" {
    const caller = this.#caller;
    if (caller === undefined || caller.models !== null || !mayEver(caller, "attachRegion")) return "none";
    return reachOf(caller, "attachRegionForWriting") === "any" ? "writing" : "reading";
  }

  /** @throws TensordError. */
  answer(frame: Frame): BrokerAnswer | Promise<BrokerAnswer> {
    this.#store.refuseIfStopping();
    const request = parseRequest(frame);
    if (request.op === "hello") return this.#greet(request);
    if (this.#caller === undefined) {
      throw refused(`Cannot ${request.op}: the connection has not said who it is`, "Send hello first.");
    }
    if (request.op === "attach") return this.#attach(this.#caller, request);
    if (request.op === "report") return this.#takeReports(this.#caller, request);
    if (request.op === "release") return this.#letGo(request);
    return this.#pools.answer(request, {
      caller: this.#caller,
      session: this.#isHolding(this.#session) ? this.#session : null,
      client: this.#clientName,
    });
  }

  #greet({ v, token, client, session }: HelloRequest): BrokerAnswer {
    if (this.#caller !== undefined) throw refused("Cannot say hello: it was said already", "Say it once, and first.");
    const caller = this.#access.authenticate({ token, peer: this.#peer });
    const held = session === undefined ? undefined : this.#sessionOf(caller, session, client);
    this.#caller = caller;
    this.#clientName = client?.name ?? held?.client?.name ?? null;
    caller.revoked.addEventListener("abort", this.#end);
    if (held !== undefined) this.#hold(held);
    const { instance, epoch } = this.#store;
    return toAnswer({
      v: Math.min(v, brokerVersion),
      instance,
      epoch,
      ...(held === undefined ? {} : { session: toSession(held) }),
      // Whoever has a token has that for HTTP, too.
      ...(held === undefined || token !== undefined ? {} : this.#issue(caller, held)),
    });
  }

  #issue(caller: Caller, session: Session): { readonly access_token?: string } {
    const issued = this.#access.issue(caller, session.token);
    return issued === undefined ? {} : { access_token: issued };
  }

  #sessionOf(
    caller: Caller,
    session: Exclude<HelloRequest["session"], undefined>,
    client: z.infer<typeof ClientRequest> | undefined,
  ): Session {
    if (typeof session === "string") return accessSession(caller, this.#store, session);
    const { name = null, quota_bytes: quotaBytes = null, ttl_ms: ttlMs = limits.sessionTtlDefaultMs } = session;
    const said = session.client ?? client;
    const facts = said === undefined ? null : toClientFacts(said, this.#peer);
    return openSession(this.#store, { name, client: facts, quotaBytes, ttlMs, createdBy: caller.name });
  }

  #hold(session: Session): void {
    this.#session = session;
    this.#release = holdSession(this.#store, session);
    session.closers.add(this.#end);
  }

  /** The session has ended otherwise, or the caller is no longer who it was. */
  readonly #end = () => {
    this.#isOurs = true;
    this.#close();
  };

  #find(caller: Caller, { region: id, model = defaultModelName, name, version, access }: AttachRequest): Region {
    if (name !== undefined) checkModel(caller, model);
    const region =
      name === undefined ? this.#store.books.region(id ?? "") : regionByName(this.#store, { model, name, version });
    checkRegionAccess(caller, access === "rw" ? "attachRegionForWriting" : "attachRegion", region);
    return region;
  }

  #attach(caller: Caller, request: AttachRequest): BrokerAnswer | Promise<BrokerAnswer> {
    const { access: word, lease = "consumer", count = 1 } = request;
    const access = word === "rw" ? "write" : "read";
    const region = this.#find(caller, request);
    const { device } = this.#store.storages.of(region);
    if (device !== null && count > 0) return this.#attachOnDevice(request, region, device, access, lease, count);
    return this.#toAttached(request, region, this.#handOut(region, access, lease, count));
  }

  /** The driver makes a descriptor for each who attaches, which takes its time. */
  async #attachOnDevice(
    request: AttachRequest,
    region: Region,
    device: DeviceAccess,
    ...how: [access: DataAccess, lease: LeaseKind, count: number]
  ): Promise<BrokerAnswer> {
    const handed = await handOutOnDevice(this.#store, region, device, ...how);
    return this.#toAttached(request, region, handed);
  }

  /** Takes over what was handed out. */
  #toAttached(request: AttachRequest, region: Region, handed: HandOut): BrokerAnswer {
    const { access, lease = "consumer", count = 1, tensors } = request;
    const isOnDevice = handed.descriptors.length > count;
    using opened = new DisposableStack();
    opened.use(handed);
    const files = handed.descriptors.slice(0, count);
    const handles = handed.descriptors.slice(count);
    const list = tensors === true ? [opened.adopt(openTensors(region), closeSync)] : [];
    const all = opened.move();
    return toAnswer(
      {
        region: toRegionFacts(this.#store, region),
        leased: handed.isLeased,
        fds: [...files.map(() => "region"), ...list.map(() => "tensors"), ...handles.map(() => "handle")],
        ...(list.length === 0 ? {} : { tensors_byte_size: region.tensors.byteSize }),
      },
      {
        descriptors: [...files, ...list, ...handles],
        region: handed.isLeased && count === 1 && !isOnDevice ? region : undefined,
        sent: () => this.#noteAttached(region, access === "rw", lease === "maker", handed.isLeased ? count : 0),
        [Symbol.dispose]: () => all.dispose(),
      },
    );
  }

  #handOut(region: Region, access: DataAccess, lease: LeaseKind, count: number): HandOut {
    try {
      return handOut(this.#store, region, access, lease, count);
    } catch (error) {
      // Its file may be gone, by a hand that is not ours.
      inspectName(this.#store, region);
      this.#store.books.region(idOf(region));
      throw error;
    }
  }

  #noteAttached(region: Region, writable: boolean, isMaker: boolean, leased: number): void {
    const store = this.#store;
    if (leased > 0) store.step("hand-out.sent");
    store.books.touch(region, store.now());
    // Without a lease he may be about to map it by its name.
    if (!isMaker) (leased > 0 ? noteHandedOut : noteFetch)(store, region);
    if (this.#isHolding(this.#session)) reportAttach(store, this.#session, region, { writable, isMaker });
  }

  /** It was handed out by a ticket, and may be gone since. */
  handed({ region: id, isWriter, lease }: Handed): void {
    const region = this.#store.books.regionById(id);
    if (region !== undefined) this.#noteAttached(region, isWriter, lease === "maker", 1);
  }

  #letGo({ region: id, lease }: ReleaseRequest): BrokerAnswer {
    const region = this.#store.books.regionById(id);
    // It may be gone before its last mapping is.
    if (region !== undefined && this.#isHolding(this.#session)) {
      reportDetach(this.#store, this.#session, region, lease === "maker");
    }
    return toAnswer({});
  }

  /** As over the WebSocket of a hold. Without a session nobody maps anything. */
  #takeReports(caller: Caller, { reports }: ReportRequest): BrokerAnswer {
    const session = this.#session;
    if (session === undefined) {
      throw refused("Cannot take reports: the connection holds no session", "Say hello with a session.");
    }
    for (const report of reports) if (this.#isHolding(session)) takeReport(this.#store, session, caller, report);
    return toAnswer({});
  }

  #isHolding(session: Session | undefined): session is Session {
    return session !== undefined && session.end === null;
  }

  /** The connection is over. */
  ended(closedBy: "peer" | "server"): void {
    this.#pools.ended();
    this.#session?.closers.delete(this.#end);
    this.#caller?.revoked.removeEventListener("abort", this.#end);
    this.#release?.(this.#isOurs || this.#store.stopping.aborted ? "server" : closedBy);
  }
}

/** The kernel knows the process of a connection; where it cannot be seen from here, nobody else is taken for it. */
function toClientFacts(client: z.infer<typeof ClientRequest>, peer: Peer): ClientFacts {
  const {
    name = null,
    pid: said = null,
    pid_namespace: namespace,
    hostname = null,
    version = null,
    labels = {},
  } = client;
  const pid = peer.pid > 0 ? peer.pid : null;
  const facts = { name, hostname, version, labels, pid };
  if (said === null || namespace === undefined || namespace === ownPidNamespace()) return facts;
  return { ...facts, pidNamespace: namespace, namespacePid: said };
}

function refused(message: string, hint: string): TensordError {
  return new TensordError("validation-failed", message, { hint });
}
