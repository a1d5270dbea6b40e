/** Who maps which region, as clients report it over their hold sockets. For people; the kernel's locks decide. */

import { limits } from "../limits.ts";
import type { Region } from "./region.ts";
import type { Session } from "./session.ts";

export interface Attachment {
  /** Mappings of the region in the session's process. */
  readonly count: number;
  readonly writable: boolean;
}

export class Holders {
  readonly #byRegion = new Map<Region, Map<Session, Attachment>>();

  /** `change` is 1 for one mapping more, −1 for one less. */
  report(session: Session, region: Region, change: 1 | -1, writable: boolean): void {
    const sessions = this.#byRegion.get(region) ?? new Map<Session, Attachment>();
    const known = sessions.get(session);
    const count = (known?.count ?? 0) + change;
    if (count <= 0) return this.#remove(session, region);
    if (known === undefined && session.attached.size >= limits.attachments) return;
    this.#byRegion.set(region, sessions);
    sessions.set(session, { count, writable: writable || known?.writable === true });
    session.attached.add(region);
  }

  of(region: Region): ReadonlyMap<Session, Attachment> {
    return this.#byRegion.get(region) ?? new Map();
  }

  /** The session's process is gone, or cannot be heard any more. */
  forgetSession(session: Session): void {
    for (const region of [...session.attached]) this.#remove(session, region);
  }

  forgetRegion(region: Region): void {
    for (const session of [...this.of(region).keys()]) this.#remove(session, region);
  }

  #remove(session: Session, region: Region): void {
    const sessions = this.#byRegion.get(region);
    sessions?.delete(session);
    if (sessions?.size === 0) this.#byRegion.delete(region);
    session.attached.delete(region);
  }
}
