/**
 * Descriptors of sealed regions, kept for who attaches the same name again, so that only the kernel is asked. Of a version that is named
 * that suffices because what was sealed changes no more, and because the name of its file goes before a delete, a replacement or an
 * eviction is answered: a file that stands there under the lease that was just taken, with the inode that the server said, is the
 * region. What else a descriptor says, such as labels, may be older than that.
 *
 * A name alone means another region once a newer version is sealed, which takes nothing away from this one. There the mode of its file
 * has to show the current mark as well, which goes before such a seal, or a change, is answered.
 */

import { constants, lstatSync } from "node:fs";
import type { NamedRegion } from "../http/api.ts";
import type { Transport } from "../http/transport.ts";
import { isHandOff, type RegionDescriptor } from "../http/wire.ts";
import type { Asker } from "./asker.ts";

const maxKept = 256;

export class KnownSealed {
  readonly #transport: Transport;
  readonly #isOfUse: boolean;
  readonly #kept = new Map<string, RegionDescriptor>();

  /** Keeps nothing for a client without a session, which tells the server of each mapping: it evicts what was used least. */
  constructor({ api, session }: Asker) {
    this.#transport = api.transport;
    this.#isOfUse = session !== undefined;
  }

  /** What is known of that region, where nobody has to say who may have it. */
  get(named: NamedRegion): RegionDescriptor | undefined {
    const kept = this.#hasToken() ? undefined : this.#kept.get(toKey(named));
    return kept === undefined || (named.version === undefined && !isCurrent(kept)) ? undefined : kept;
  }

  /** Keeps what the server has just said, if it can be found again by the kernel alone. @returns it */
  note(named: NamedRegion, region: RegionDescriptor): RegionDescriptor {
    const key = toKey(named);
    this.#kept.delete(key);
    if (!this.#isOfUse || !isFoundByName(region) || this.#hasToken() || this.#transport.closed.aborted) return region;
    const [oldest] = this.#kept.keys();
    if (this.#kept.size >= maxKept && oldest !== undefined) this.#kept.delete(oldest);
    this.#kept.set(key, region);
    return region;
  }

  clear(): void {
    this.#kept.clear();
  }

  /** A server with tokens may refuse today what it answered yesterday. */
  #hasToken(): boolean {
    return this.#transport.endpoint.token !== undefined || this.#transport.issuedToken !== undefined;
  }
}

function toKey({ model, name, version }: NamedRegion): string {
  return JSON.stringify([model, name, version]);
}

/** Whether its file bears the current mark. A server from before there was one never sets it. */
function isCurrent({ storage: { path } }: RegionDescriptor): boolean {
  const stat = typeof path === "string" ? lstatSync(path, { throwIfNoEntry: false }) : undefined;
  return stat !== undefined && (stat.mode & constants.S_IXUSR) !== 0;
}

function isFoundByName(region: RegionDescriptor): boolean {
  const { kind, path } = region.storage;
  // The server waits for who consumes a hand-off, and has to hear of each.
  return region.state === "sealed" && kind === "shm" && typeof path === "string" && !isHandOff(region);
}
