/** Who maps which region, as clients report it over their hold sockets. For people; the kernel's locks decide. */

import { limits } from "../limits.ts";
import type { Region } from "./region.ts";
import type { Session } from "./session.ts";

/** Mappings of one region in one process. */
export interface Mappings {
  readonly count: number;
  /** Whether one of them was for writing. It stands until the last of them is gone. */
  readonly writable: boolean;
}

export interface Attachment extends Mappings {
  /** Those of its maker, which is none of those for whom the region was made. */
  readonly made: Mappings;
  readonly consumed: Mappings;
}

const none: Mappings = { count: 0, writable: false };

export class Holders {
  readonly #byRegion = new Map<Region, Map<Session, Attachment>>();

  /** One mapping more. */
  attach(
    session: Session,
    region: Region,
    mapping: { readonly isConsumer: boolean; readonly writable: boolean },
  ): void {
    const known = this.of(region).get(session);
    if (known === undefined && session.attached.size >= limits.attachments) return;
    const { made, consumed } = known ?? { made: none, consumed: none };
    const more = ({ count, writable }: Mappings) => ({ count: count + 1, writable: writable || mapping.writable });
    const [nowMade, nowConsumed] = mapping.isConsumer ? [made, more(consumed)] : [more(made), consumed];
    this.#set(session, region, nowMade, nowConsumed);
  }

  /** One mapping less. @returns whether it was a consumer's. */
  detach(session: Session, region: Region, isMaker: boolean): boolean {
    const { made, consumed } = this.of(region).get(session) ?? { made: none, consumed: none };
    const isConsumer = consumed.count > 0 && (!isMaker || made.count === 0);
    const less = ({ count, writable }: Mappings) => (count > 1 ? { count: count - 1, writable } : none);
    this.#set(session, region, isConsumer ? made : less(made), isConsumer ? less(consumed) : consumed);
    return isConsumer;
  }

  /** Mappings that are consumers', in all processes. */
  consumersOf(region: Region): number {
    return [...this.of(region).values()].reduce((sum, { consumed }) => sum + consumed.count, 0);
  }

  of(region: Region): ReadonlyMap<Session, Attachment> {
    return this.#byRegion.get(region) ?? new Map();
  }

  /** Every region that is mapped, with the sessions of those who map it. */
  all(): Iterable<readonly [Region, ReadonlyMap<Session, Attachment>]> {
    return this.#byRegion;
  }

  /** The session's process is gone, or cannot be heard any more. @returns the regions that it consumed. */
  forgetSession(session: Session): readonly Region[] {
    const attached = [...session.attached];
    const consumed = attached.filter((region) => (this.of(region).get(session)?.consumed.count ?? 0) > 0);
    for (const region of attached) this.#remove(session, region);
    return consumed;
  }

  forgetRegion(region: Region): void {
    for (const session of [...this.of(region).keys()]) this.#remove(session, region);
  }

  #set(session: Session, region: Region, made: Mappings, consumed: Mappings): void {
    const count = made.count + consumed.count;
    if (count === 0) return this.#remove(session, region);
    const sessions = this.#byRegion.get(region) ?? new Map<Session, Attachment>();
    this.#byRegion.set(region, sessions);
    sessions.set(session, { count, writable: made.writable || consumed.writable, made, consumed });
    session.attached.add(region);
  }

  #remove(session: Session, region: Region): void {
    const sessions = this.#byRegion.get(region);
    sessions?.delete(session);
    if (sessions?.size === 0) this.#byRegion.delete(region);
    session.attached.delete(region);
  }
}
