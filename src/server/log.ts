/**
 * The server's log: one JSON line each on standard output, without tensor content, its keys in snake_case. Writing never holds
 * the event loop. On a terminal it is for people.
 */

import pino, { type Logger } from "pino";
import { idOf } from "../memory/journal/region-record.ts";
import { KiB, limits, MiB } from "../memory/limits.ts";
import { toJsonText } from "../memory/naming.ts";
import { idOfPool } from "../memory/state/elastic.ts";
import { idOfOperation } from "../memory/state/operation.ts";
import { describeSession } from "../memory/state/session.ts";
import type { StoreEvent } from "../memory/state/store-event.ts";
import { Flusher } from "./flusher.ts";
import { toLogText } from "./log-text.ts";

/** Where lines are written. */
export interface LogLines {
  readonly log: Logger;
  /** Writes a line of level info. @param members JSON's, each with a comma before it: the library makes many more texts of the same. */
  readonly info: (members: string) => void;
}

export interface ServerLog extends LogLines {
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
  const toLine = process.stdout.isTTY ? toLogText : (json: string) => json;
  const lines = createLines(level, instance, (json) => flusher.write(toLine(json)));
  return {
    ...lines,
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

/** @param write gets each line, with its end. */
export function createLines(level: string, instance: string, write: (json: string) => void): LogLines {
  const timestamp = pino.stdTimeFunctions.isoTime;
  const log = pino({ level, base: { instance }, timestamp, serializers: { err: toErrorFacts } }, { write });
  const begin = `{"level":${pino.levels.values.info}`;
  const base = `,"instance":${toJsonText(instance)}`;
  const info = (members: string) => {
    if (log.isLevelEnabled("info")) write(`${begin}${timestamp()}${base}${members}}\n`);
  };
  return { log, info };
}

/** What an error carries under our spelling: SQLite's have a `byteOffset`. What is no error passes as it is. */
function toErrorFacts(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const facts = Object.entries(pino.stdSerializers.err(error));
  return Object.fromEntries(facts.map(([key, value]) => [key.replaceAll(/[A-Z]/g, "_$&").toLowerCase(), value]));
}

/** Writes each change of the books as a line. `level` is the line's own, and so `pressure` is what the event calls that. */
export function logEvent({ log, info }: LogLines, event: StoreEvent): void {
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
  if (type === "tensord.region.relinked" || type === "tensord.region.lost") {
    const { model, name, formerName, state, reason, byteSize } = event.region;
    const facts = { model, name: name ?? formerName, state, reason, byte_size: byteSize, cause: event.cause };
    return log.warn({ event: type, region: idOf(event.region), ...facts }, type);
  }
  info(toRegionMembers(event));
}

type RegionEvent = Extract<StoreEvent, { region: unknown }>;

/** Of the events of regions, which are nearly all lines of a log. */
function toRegionMembers(event: RegionEvent): string {
  const { type, region } = event;
  const { model, name, formerName, state, reason, byteSize } = region;
  const what = `,"event":"${type}","region":"${idOf(region)}","model":${toJsonText(model)},"name":${toJson(name ?? formerName)}`;
  const more = "actor" in event && event.actor !== undefined ? `,"actor":${toJson(event.actor)}` : "";
  return `${what},"state":"${state}","reason":${toJson(reason)},"byte_size":${byteSize}${more},"msg":"${type}"`;
}

function toJson(text: string | null): string {
  return text === null ? "null" : toJsonText(text);
}
