/**
 * How many connections fit, and what is done when none does: those on which nobody asks, or whose request or answer does not
 * move, are ended, so that others are taken. Their clients ask again. It knows no route.
 */

import { closeSync, fstatSync, openSync, statSync } from "node:fs";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { isOutOfDescriptors, outOfDescriptors, raiseLimit, setAside } from "../memory/os/descriptors.ts";
import { listDirectory } from "../memory/os/files.ts";
import { endConnection, readPeer, readPeerPid, readSent } from "../memory/os/libc-sockets.ts";
import { findListeners, type Listener } from "./listeners.ts";

type Server = Pick<
  Bun.Server<unknown>,
  "closeIdleConnections" | "pendingRequests" | "pendingWebSockets" | "requestIP" | "port"
>;

/** Who connects there: clients by TCP or by the Unix socket, or probes, who always may. */
type Door = "tcp" | "unix" | "probes";

/** What a request that is being answered holds. */
export interface Asking extends Disposable {
  /** Called while a body comes; `end` ends that, should it not come in time. */
  reading(end: (failure: TensordError) => void): Disposable;
}

export interface Room {
  /** What the process may have open. */
  readonly limit: number;
  readonly spare: number;
  /** Connections that fit beside what it holds itself. */
  readonly connections: number;
}

/** Hears when no connection fits any more, and when they do again. */
export interface DistressWatcher {
  begins(): void;
  /** @param ended how many connections were ended meanwhile. */
  ends(ended: number): void;
}

export class Connections implements Disposable {
  readonly #servers: Server[] = [];
  readonly #unixServers: Server[] = [];
  readonly #probePorts = new Set<number | undefined>();
  /** Connections that this process was born with, as a log's may be. */
  readonly #inherited = new Set(listDirectory("/proc/self/fd").map(Number).filter(readPeer));
  /** Connections of the broker, which has a bound of its own, and the one to the fd holder: they stay. */
  readonly #kept = new Set<number>();
  readonly #watcher: DistressWatcher;
  /** Ports from which something is asked that is not answered yet. */
  readonly #asking = new Map<number, number>();
  readonly #bodies = new Map<(failure: TensordError) => void, number>();
  #room: (Room & Disposable) | undefined;
  #listeners: readonly Listener[] = [];
  #timer: Timer | undefined;
  #distress: Distress | undefined;
  /** Works under way that nobody may take a descriptor from. */
  #undisturbed = 0;

  constructor(watcher: DistressWatcher) {
    this.#watcher = watcher;
  }

  /** Counts `server`'s from now on. */
  add(server: Server, door: Door): void {
    this.#servers.push(server);
    if (door === "unix") this.#unixServers.push(server);
    if (door === "probes") this.#probePorts.add(server.port);
  }

  /** Never ends the connection `fd`, whatever is asked over it. */
  keep(fd: number): void {
    this.#kept.add(fd);
  }

  /** To be called before `fd` is closed. */
  forgetKept(fd: number): void {
    this.#kept.delete(fd);
  }

  get room(): Room | undefined {
    return this.#room;
  }

  /**
   * Sets the spare descriptors aside and begins to look. To be called when all that the server holds is open.
   * @throws TensordError `out-of-descriptors` if too few connections fit.
   */
  start(): void {
    const aside = setAside(limits.spareDescriptors);
    // The list's own descriptor is among them.
    const used = listDirectory("/proc/self/fd").length - 1;
    if (aside === undefined) return;
    const { limit, spare } = aside;
    const connections = limit - spare - used;
    if (connections < limits.connectionsMin) {
      aside[Symbol.dispose]();
      throw tooFew(limit, used, connections);
    }
    this.#room = { limit, spare, connections, [Symbol.dispose]: () => aside[Symbol.dispose]() };
    this.#listeners = findListeners();
    this.#schedule(limits.calmLookMs);
  }

  /** @throws TensordError `out-of-descriptors` if what is asked would stay, and only what is answered at once has room. */
  refuseIfCrowded(toWhat: string): void {
    if (this.#room === undefined) return;
    const kept = Math.ceil((this.#room.connections * limits.answeredAtOncePercent) / 100);
    // One whose body is still to come is ended for whoever needs its place.
    const staying = this.#servers.reduce((sum, each) => sum + each.pendingRequests + each.pendingWebSockets, 0);
    if (staying - this.#bodies.size <= this.#room.connections - kept) return;
    throw outOfDescriptors(`Cannot ${toWhat}: too many connections stay`);
  }

  /** Notes that `request` is being answered, until disposed. */
  ask(server: Server, request: Request): Asking {
    // Of a Unix socket there is none to be told.
    const port = this.#unixServers.includes(server) ? undefined : server.requestIP(request)?.port;
    if (port !== undefined) this.#asking.set(port, (this.#asking.get(port) ?? 0) + 1);
    return {
      reading: (end) => {
        this.#bodies.set(end, performance.now());
        return { [Symbol.dispose]: () => void this.#bodies.delete(end) };
      },
      // The runtime sends the head in the turn in which it gets the answer.
      [Symbol.dispose]: () => void (port !== undefined && setImmediate(() => this.#forget(port))),
    };
  }

  #forget(port: number): void {
    const count = this.#asking.get(port) ?? 0;
    if (count > 1) this.#asking.set(port, count - 1);
    else this.#asking.delete(port);
  }

  /** Runs `work` with the spare descriptors, while only probes can connect. */
  async undisturbed<Result>(work: () => Promise<Result>): Promise<Result> {
    using _ = raiseLimit("short");
    this.#undisturbed += 1;
    this.#letIn(this.#probes);
    try {
      return await work();
    } finally {
      this.#undisturbed -= 1;
      if (this.#distress === undefined && this.#undisturbed === 0) this.#letIn(this.#listeners);
    }
  }

  get #probes(): Listener[] {
    return this.#listeners.filter(({ port }) => port !== undefined && this.#probePorts.has(port));
  }

  #letIn(listeners: readonly Listener[]): void {
    for (const listener of this.#listeners) if (!listeners.includes(listener)) listener.rest();
    for (const listener of listeners) listener.wake();
  }

  #schedule(delayMs: number): void {
    this.#timer = setTimeout(() => this.#look(), delayMs);
    this.#timer.unref();
  }

  #look(): void {
    try {
      if (!hasDescriptor()) {
        if (this.#distress === undefined) this.#watcher.begins();
        this.#distress ??= new Distress(this.#asking, [this.#inherited, this.#kept], this.#room?.limit ?? 0);
        this.#relieve(this.#distress);
      }
      if (this.#distress !== undefined) this.#follow(this.#distress);
    } finally {
      if (this.#room !== undefined)
        this.#schedule(
          this.#distress === undefined ? calmDelayMs(this.#room.limit, countOpen()) : limits.distressLookMs,
        );
    }
  }

  /** Closes and ends what nobody would miss. */
  #relieve(distress: Distress): void {
    for (const server of this.#servers) distress.ended += server.closeIdleConnections();
    const late = performance.now() - limits.distressBodyMs;
    for (const [end, since] of this.#bodies) {
      if (since > late) continue;
      this.#bodies.delete(end);
      end(outOfDescriptors("Cannot wait longer for the request's body"));
      distress.ended += 1;
    }
    distress.look(this.#unixServers.every((each) => each.pendingRequests + each.pendingWebSockets === 0));
  }

  /** One listener at a time takes what becomes free, or whoever is asked most would leave nothing to the others. */
  #follow(distress: Distress): void {
    const isOver = performance.now() > distress.fullAt + limits.distressEndMs;
    const open = this.#undisturbed === 0 ? this.#listeners : this.#probes;
    distress.turns += 1;
    this.#letIn(isOver ? open : open.slice(distress.turns % open.length).slice(0, 1));
    if (!isOver) return;
    this.#watcher.ends(distress.ended);
    this.#distress = undefined;
  }

  /** To be called before any listener is closed. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#letIn(this.#listeners);
    this.#listeners = [];
    this.#distress = undefined;
    this.#room?.[Symbol.dispose]();
    this.#room = undefined;
  }
}

/** Whether a connection could be taken now. */
function hasDescriptor(): boolean {
  try {
    closeSync(openSync("/dev/null", "r"));
    return true;
  } catch (error) {
    return !isOutOfDescriptors(error);
  }
}

/** How many this process has open; 0 where the kernel does not tell, as before Linux 6.2: then it is the folder's size. */
function countOpen(): number {
  return statSync("/proc/self/fd").size;
}

/** When to look again, of `limit` descriptors that may be `open`: before those that are free could be taken. */
export function calmDelayMs(limit: number, open: number): number {
  if (open === 0) return limits.calmLookMs;
  const lastMs = (limit - open) / limits.takenDescriptorsPerMs;
  return Math.min(Math.max(lastMs, limits.calmLookMs), limits.idleLookMs);
}

/** A time without a free descriptor: looks at the open ones slice by slice, and ends what nobody would miss. */
class Distress {
  ended = 0;
  turns = 0;
  /** When there was none, at the last look. */
  fullAt = 0;
  readonly #asking: ReadonlyMap<number, number>;
  readonly #spared: readonly ReadonlySet<number>[];
  /** What was there at earlier looks, and since when, by descriptor: whatever it had sent by then has been read. */
  readonly #seen = new Map<number, { readonly identity: string; readonly since: number }>();
  readonly #limit: number;
  #lastEndedAt = performance.now();
  #next = 0;

  /** @param limit the most that this process may have open: descriptors are counted through, since a list would need one. */
  constructor(asking: ReadonlyMap<number, number>, spared: readonly ReadonlySet<number>[], limit: number) {
    this.#asking = asking;
    this.#spared = spared;
    this.#limit = limit;
  }

  /** @param isUnixSilent nothing is being answered over a Unix socket. */
  look(isUnixSilent: boolean): void {
    this.fullAt = performance.now();
    const before = this.ended;
    const end = Math.min(this.#next + limits.distressSlice, this.#limit);
    for (let fd = this.#next; fd < end; fd++) if (this.#isDue(fd, isUnixSilent)) this.#end(fd);
    this.#next = end < this.#limit ? end : 0;
    if (this.ended > before) this.#lastEndedAt = performance.now();
    else if (performance.now() > this.#lastEndedAt + limits.distressPatienceMs) this.#endGreediest();
  }

  /** Whether `fd` is a connection that had its time, and that nobody would miss. */
  #isDue(fd: number, isUnixSilent: boolean): boolean {
    const peer = this.#spared.some((fds) => fds.has(fd)) ? undefined : readPeer(fd);
    if (peer === undefined) {
      this.#seen.delete(fd);
      return false;
    }
    const identity = peer.kind === "tcp" ? String(peer.port) : toSocketIdentity(fd);
    const seen = this.#seen.get(fd);
    if (seen?.identity !== identity) {
      this.#seen.set(fd, { identity, since: this.fullAt });
      return false;
    }
    if (seen.since > this.fullAt - limits.distressGraceMs) return false;
    return peer.kind === "tcp" ? this.#isIdle(fd, peer.port) : isUnixSilent;
  }

  /** Whether nobody waits for an answer there, or takes it. */
  #isIdle(fd: number, port: number): boolean {
    const sent = readSent(fd);
    if (sent === undefined) return false;
    if (sent.segments === 0) return !this.#asking.has(port);
    return sent.waitingBytes > 0 && sent.lastMs > limits.distressStallMs;
  }

  #end(fd: number): void {
    this.#seen.delete(fd);
    endConnection(fd);
    this.ended += 1;
  }

  /**
   * Of a Unix connection nobody can tell whether it asks while any does. Then the process with the most of them is the one to
   * ask again, and not all the others.
   */
  #endGreediest(): void {
    this.#lastEndedAt = performance.now();
    const unix = [...this.#seen.keys()].filter((fd) => readPeer(fd)?.kind === "unix");
    const byPid = Object.entries(Object.groupBy(unix, (fd) => readPeerPid(fd) ?? 0));
    const [, greediest = []] = byPid.toSorted(([, a = []], [, b = []]) => b.length - a.length)[0] ?? [];
    if (greediest.length > 1) for (const fd of greediest) this.#end(fd);
  }
}

function toSocketIdentity(fd: number): string {
  try {
    return String(fstatSync(fd, { bigint: true }).ino);
  } catch {
    return "";
  }
}

function tooFew(limit: number, used: number, connections: number): TensordError {
  return new TensordError(
    "out-of-descriptors",
    `Cannot serve: this process may open ${limit} files, ${used} are open already, ${limits.spareDescriptors} are kept for its ` +
      `own work, and ${Math.max(0, connections)} connections would fit, want at least ${limits.connectionsMin}`,
    {
      limit,
      hint: "Raise the limit: LimitNOFILE= in systemd, --ulimit nofile= in Docker, ulimit -n in a shell.",
    },
  );
}
