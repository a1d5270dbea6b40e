/**
 * The server's log: one JSON line each on standard output, without tensor content, its keys in snake_case. Writing never holds
 * the event loop. On a terminal it is for people.
 */

import pino, { type Logger } from "pino";
import { idOf } from "../memory/journal/region-record.ts";
import { KiB, limits, MiB } from "../memory/limits.ts";
import { idOfPool } from "../memory/state/elastic.ts";
import { idOfOperation } from "../memory/state/operation.ts";
import { describeSession } from "../memory/state/session.ts";
import type { StoreEvent } from "../memory/state/store-event.ts";
import { Flusher } from "./flusher.ts";
import { toLogText } from "./log-text.ts";

export interface ServerLog {
  readonly log: Logger;
  /** Writes out what is still buffered, if its reader still takes it, and closes; call it last. */
  close(): Promise<void>;
}

export function createLog(level: string, instance: string): ServerLog {
  // A reader that stalls must not stall us: lines are buffered, and dropped when it has not read for long. Written one by
  // one they would cost an allocation a fifth of its time.
  const destination = pino.destination({
    dest: 1,
    sync: false,
    minLength: 8 * KiB,
    maxLength: 16 * MiB,
  });
  const flusher = new Flusher(destination, limits.logFlushMs);
  const timestamp = pino.stdTimeFunctions.isoTime;
  const options = { level, base: { instance }, timestamp, serializers: { err: toErrorFacts } };
  const toLine = process.stdout.isTTY ? toLogText : (json: string) => json;
  const log = pino(options, { write: (json: string) => flusher.write(toLine(json)) });
  return {
    log,
    async close() {
      flusher.stop();
      // Never flushSync: on a pipe that nobody reads any more it tries for ever, and the server would not end.
      const { promise, resolve } = Promise.withResolvers<void>();
      destination.flush(() => resolve());
      await Promise.race([promise, Bun.sleep(limits.logCloseMs)]);
      destination.destroy();
    },
  };
}

/** What an error carries under our spelling: SQLite's have a `byteOffset`. What is no error passes as it is. */
function toErrorFacts(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const facts = Object.entries(pino.stdSerializers.err(error));
  return Object.fromEntries(facts.map(([key, value]) => [key.replaceAll(/[A-Z]/g, "_$&").toLowerCase(), value]));
}

/** Writes each change of the books as a line. `level` is the line's own, and so `pressure` is what the event calls that. */
export function logEvent(log: Logger, event: StoreEvent): void {
  const { type } = event;
  if ("pressure" in event) {
    const { level, pool, model, usedBytes, limitBytes } = event.pressure;
    const facts = { pressure: level, pool, model, used_bytes: usedBytes, limit_bytes: limitBytes };
    return log[level === "high" ? "warn" : "info"]({ event: type, ...facts }, type);
  }
  if ("session" in event) return log.info({ event: type, session: describeSession(event.session) }, type);
  if ("operation" in event) {
    const { kind, state, source, result, failure } = event.operation;
    const facts = { operation: idOfOperation(event.operation), kind, state, source, region: result };
    const cause = failure === null ? {} : { err: failure };
    // Whoever asked is told of a failure, and sees its progress.
    return log[type === "tensord.operation.progress" ? "debug" : "info"]({ event: type, ...facts, ...cause }, type);
  }
  if ("elastic" in event) {
    const { model, deviceUuid } = event.elastic;
    const pages = "runs" in event ? event.runs : event.moves;
    const byteSize = pages.reduce((sum, run) => sum + run.byteSize, 0);
    const facts = { pool: idOfPool(event.elastic), model: model.name, device_uuid: deviceUuid, byte_size: byteSize };
    const why = "reason" in event ? { reason: event.reason } : {};
    return log[why.reason === "lost" ? "warn" : "info"]({ event: type, ...facts, ...why }, type);
  }
  if (!("region" in event)) return log.info({ event: type, model: event.model.name }, type);
  const { model, name, formerName, state, reason, byteSize } = event.region;
  const called = name ?? formerName;
  const facts = { event: type, region: idOf(event.region), model, name: called, state, reason, byte_size: byteSize };
  const extra = "actor" in event ? { actor: event.actor } : "cause" in event ? { cause: event.cause } : {};
  if (type === "tensord.region.relinked" || type === "tensord.region.lost") log.warn({ ...facts, ...extra }, type);
  else log.info({ ...facts, ...extra }, type);
}
