/** What every handler gets beside the request: the store, and what the transport knows of the request. */

import type { RouteConfig } from "@hono/zod-openapi";
import type { FileLane } from "../loaders/file-lane.ts";
import type { Diagnosis } from "../memory/doctor/finding.ts";
import type { HostCapabilities } from "../memory/host/capabilities.ts";
import type { DeviceReport } from "../memory/host/device.ts";
import type { Store } from "../memory/state/store.ts";
import type { Caller } from "./access/caller.ts";

/** What passed over HTTP since the start; the transports count it. */
export interface Traffic {
  requests: number;
  receivedBytes: number;
  sentBytes: number;
}

/** What the composition root finds out for routes that explain the server. */
export interface Host {
  /** Where the broker listens; null if it does not. */
  brokerPath(): string | null;
  capabilities(): Promise<HostCapabilities>;
  devices(): Promise<DeviceReport>;
  diagnose(): Promise<Diagnosis>;
  /** @param accept the header of the request, which chooses the format. */
  metrics(accept: string | null): Promise<{ readonly contentType: string; readonly text: string }>;
}

export interface Services {
  readonly store: Store;
  readonly host: Host;
  readonly version: string;
  /** Which folders' files are loaded, and what opens them. */
  readonly loading: { readonly roots: readonly string[]; readonly files: FileLane };
  /** @throws TensordError `not-ready`, `shutting-down` while requests should go elsewhere; left out: the store's word counts. */
  readonly refuseUnlessReady?: (() => void) | undefined;
  readonly traffic: Traffic;
  /**
   * Who asks, by the header Authorization; undefined: nobody needs a token here.
   * @throws TensordError `unauthorized`, `too-many-requests`.
   */
  readonly authenticate?: ((authorization: string | undefined) => Caller) | undefined;
  /** Hears of each request that was answered. */
  readonly observe: (operation: string, method: string, status: number, seconds: number) => void;
  /** Hears of a mistake of ours, with the id that the client was given. */
  readonly onUnexpected: (error: unknown, requestId: string | undefined) => void;
}

/** A WebSocket as a protocol uses it. */
export interface Socket {
  /** @returns the bytes sent; −1 if they wait for the peer to read; 0 if they were dropped. */
  send(text: string): number;
  close(code: number, reason: string): void;
}

/** What a route does with a WebSocket: called by the transport, `closed` last. */
export interface SocketProtocol {
  /** The WebSocket subprotocol that this is, if it has a name; chosen if the client offers it. */
  readonly subprotocol?: string;
  /** What the handshake's answer says beside. */
  readonly headers?: Readonly<Record<string, string>>;
  open(socket: Socket): void;
  message(text: string): void;
  /** The peer has read what waited for it. */
  drain(): void;
  /** @param closedBy `server` also if the transport closed it, for a frame that was too large. */
  closed(closedBy: "peer" | "server"): void;
}

export interface Environment {
  Bindings: {
    /** Says that the request's body is awaited until disposed; `end` is called with a failure if it must not be any longer. */
    readonly reading?: (end: (failure: Error) => void) => Disposable;
    /** Says that the request stays for as long as others like. @throws TensordError `out-of-descriptors` if too many do. */
    readonly stay?: (toWhat: string) => void;
    /** Keeps a request open that may take longer than the transport's idle time. */
    readonly keepOpen?: () => void;
    /** Takes that back: a connection that does not move is cut. */
    readonly endSoon?: () => void;
    /** The answer is a stream that ends when the server stops, so that a stop need not wait for its reader. */
    readonly beginStream?: () => () => void;
    /** Calls `then` once the transport has begun to send the answer, or knows that it will not. */
    readonly onBegun?: (then: () => void) => void;
    /** Hears how many bytes the answer has. What streams is not among it. */
    readonly sent?: (bytes: number) => void;
    /** Turns a WebSocket handshake into a socket that speaks `protocol`. @throws TensordError as `stay`. */
    readonly upgrade?: (protocol: SocketProtocol) => void;
  };
  Variables: {
    requestId: string;
    /** Of the document, that answers; undefined where none does. */
    operation: RouteConfig | undefined;
    caller: Caller;
    /** The body, if it is JSON; "" if there is none. */
    body: string | undefined;
    /** The tensors of a large creation, which its body has no longer. */
    tensors: SharedArrayBuffer | undefined;
    /** Aborts when the client goes away. */
    signal: AbortSignal;
  };
}
