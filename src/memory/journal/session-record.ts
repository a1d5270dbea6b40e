/** What of a session outlives the server: the journal's row. Pure. */

/** Who the worker says it is; for people, never for decisions. */
export interface ClientFacts {
  readonly name: string | null;
  /** As this server sees it; null if it said none, or none here surely is it. */
  readonly pid: number | null;
  /** Where it is in another PID namespace than the server: which, and what it is called there. Older rows have neither. */
  readonly pidNamespace?: string | null;
  readonly namespacePid?: number | null;
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
  /** Whose it is: the name of a token, or null where nobody was asked for one. */
  readonly createdBy: string | null;
}
