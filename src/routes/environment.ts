/** What every handler gets beside the request: the store, and what the transport knows of the request. */

import type { Store } from "../memory/store.ts";

/** What passed over HTTP since the start; the transports count it. */
export interface Traffic {
  requests: number;
  receivedBytes: number;
  sentBytes: number;
}

export interface Services {
  readonly store: Store;
  readonly version: string;
  readonly traffic: Traffic;
  /** Hears of a mistake of ours, with the id that the client was given. */
  readonly onUnexpected: (error: unknown, requestId: string | undefined) => void;
}

export interface Environment {
  Bindings: {
    /** Keeps a request open that may take longer than the transport's idle time. */
    readonly keepOpen?: () => void;
  };
  Variables: {
    requestId: string;
    /** Aborts when the client goes away. */
    signal: AbortSignal;
  };
}
