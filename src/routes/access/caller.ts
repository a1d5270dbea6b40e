/** Who asks, as whoever authenticates found out. What a role may do is `rights.ts`'s. */

export const roles = ["admin", "worker", "reader"] as const;
export type Role = (typeof roles)[number];

export interface Caller {
  /** By which regions, sessions and leases are its own: the token's name. null: nobody asks for tokens here. */
  readonly name: string | null;
  readonly role: Role;
  /** The models that it may use; null: all. */
  readonly models: ReadonlySet<string> | null;
  /** The folders whose files it may have loaded, and no others, of those that the server may read; null: all. */
  readonly roots: readonly string[] | null;
  /** Aborts once this is no longer true: the token was taken away, or changed. */
  readonly revoked: AbortSignal;
}

/** Whoever reaches a server that asks for no tokens. */
export const anybody: Caller = {
  name: null,
  role: "admin",
  models: null,
  roots: null,
  revoked: new AbortController().signal,
};
