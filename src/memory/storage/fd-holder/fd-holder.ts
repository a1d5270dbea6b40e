/**
 * What a storage asks of the fd holder: the process beside the server that keeps descriptors while no server is there. Who
 * implements it is `held-descriptors.ts`.
 */

/**
 * What is to be kept: a descriptor, or, where one is made on demand, what makes one. The latter closes what it gives once the fd
 * holder has its copy.
 */
export type Keepable = number | (() => Promise<number>);

export interface FdHolder {
  /**
   * Resolves once the fd holder has a copy of `what`, which then outlives this process. A descriptor stays the caller's, and has
   * to stay open until `drop`: an fd holder that was killed is replaced by a new one, which is given it again. For the same reason
   * what is made on demand is made again.
   * @throws TensordError `io-error` if no fd holder can be had or it does not answer, `out-of-descriptors` if it has none left.
   */
  keep(token: string, what: Keepable): Promise<void>;
  /** A descriptor of what an earlier server kept, the caller's to close after `drop`. As with `keep` it has to stay open until then. */
  give(token: string): Promise<number>;
  /** Has the fd holder close its copy, if it has one. Resolves once it did, or was told to and does not answer. */
  drop(token: string): Promise<void>;
  /** The tokens of everything that is kept. */
  list(): Promise<readonly string[]>;
}
