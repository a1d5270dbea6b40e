/** Every change of the books as the store tells it. How an event looks on the wire is `src/routes`'. */

import type { EventTopic } from "../events/event-log.ts";
import type { RegionRecord } from "../journal/region-record.ts";
import type { LossCause } from "../storage/storage.ts";
import type { ElasticPool, MapReason, PageMove, Run, UnmapReason } from "./elastic.ts";
import type { Operation } from "./operation.ts";
import type { Pressure } from "./pressure.ts";
import type { Model, Region } from "./region.ts";
import type { Session, SessionEndReason } from "./session.ts";

/** A region as an event shows it: one that was lost has no books any more. */
export type EventRegion = RegionRecord & Pick<Region, "lastUsedAt">;

export type StoreEvent =
  | { readonly type: "tensord.region.allocated"; readonly region: EventRegion }
  | { readonly type: "tensord.region.sealed"; readonly region: EventRegion }
  | { readonly type: "tensord.region.changed"; readonly region: EventRegion }
  | { readonly type: "tensord.region.draining"; readonly region: EventRegion; readonly actor: string | undefined }
  | { readonly type: "tensord.region.deleted"; readonly region: EventRegion; readonly actor: string | undefined }
  | { readonly type: "tensord.region.lost"; readonly region: EventRegion; readonly cause: LossCause }
  | {
      readonly type: "tensord.region.relinked";
      readonly region: EventRegion;
      readonly cause: "unlinked" | "foreign-file";
    }
  | { readonly type: "tensord.pool.pressure"; readonly pressure: Pressure }
  | { readonly type: "tensord.session.opened"; readonly session: Session }
  | {
      readonly type: "tensord.session.ended";
      readonly session: Session;
      readonly reason: SessionEndReason;
      readonly regions: number;
      readonly freedBytes: number;
    }
  | { readonly type: "tensord.operation.progress"; readonly operation: Operation }
  | { readonly type: "tensord.operation.finished"; readonly operation: Operation }
  | {
      readonly type: "tensord.vmm.mapped";
      readonly elastic: ElasticPool;
      readonly runs: readonly Run[];
      readonly reason: MapReason;
    }
  | {
      readonly type: "tensord.vmm.unmapped";
      readonly elastic: ElasticPool;
      readonly runs: readonly Run[];
      readonly reason: UnmapReason;
      readonly actor: string | undefined;
    }
  | { readonly type: "tensord.vmm.moved"; readonly elastic: ElasticPool; readonly moves: readonly PageMove[] }
  | { readonly type: "tensord.model.registered"; readonly model: Model }
  | { readonly type: "tensord.model.changed"; readonly model: Model }
  | { readonly type: "tensord.model.unregistered"; readonly model: Model };

/** What those who follow one model or one session filter by. */
export function toTopic(event: StoreEvent): EventTopic {
  if ("region" in event) return { model: event.region.model, session: event.region.session };
  if ("session" in event) return { model: null, session: event.session.token, createdBy: event.session.createdBy };
  if ("operation" in event) return { model: event.operation.model, session: null };
  if ("elastic" in event) return { model: event.elastic.model.name, session: toSessionOf(event) };
  return { model: "pressure" in event ? event.pressure.model : event.model.name, session: null };
}

/** The session of all of its runs, if it is one. */
function toSessionOf(event: Extract<StoreEvent, { elastic: unknown }>): string | null {
  if (!("runs" in event)) return null;
  const sessions = new Set(event.runs.map(({ session }) => session));
  const [first = null] = sessions;
  return sessions.size === 1 ? first : null;
}
