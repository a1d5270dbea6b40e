/** What of a session outlives the server: the journal's row. Pure. */

/** Who the worker says it is; for people, never for decisions. */
export interface ClientFacts {
  readonly name: string | null;
  readonly pid: number | null;
  readonly hostname: string | null;
  readonly version: string | null;
  readonly labels: Readonly<Record<string, string>>;
}

/** What of a session outlives the server: the journal's row. Its TTL counts anew from the next start. */
export interface SessionRecord {
  readonly key: number;
  readonly token: string;
  readonly name: string | null;
  readonly client: ClientFacts | null;
  /** What it may own at once, or null. */
  readonly quotaBytes: number | null;
  readonly ttlMs: number;
  readonly createdAt: number;
}
