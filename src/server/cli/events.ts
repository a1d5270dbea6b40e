/** `events`: what happens on the server, one event a line, from now on or from an earlier one. */

import { count as inWords } from "../../memory/doctor/words.ts";
import { toPrintableLine } from "../../memory/naming.ts";
import { gapType } from "../../routes/schemas/event-data.ts";
import type { Model, Operation, Session } from "./answers.ts";
import type { Api } from "./api.ts";
import { type Event, follow } from "./follow.ts";
import { hostOf } from "./pools.ts";
import { parseCount } from "./quantity.ts";
import { toSessionName } from "./region-text.ts";
import { toBytes } from "./table.ts";
import type { Running } from "./until-stopped.ts";

/** As they were written. */
export interface EventsOptions {
  readonly after?: string;
  readonly model?: string;
  readonly session?: string;
  readonly types?: string;
  readonly count?: string;
  readonly follow: boolean;
}

const pageItems = 1000;

/** Prints events until it is stopped, `count` is reached, or, without `follow`, there are no more. */
export async function events(api: Api, options: EventsOptions, asJson: boolean, running: Running): Promise<void> {
  const count = options.count === undefined ? Number.POSITIVE_INFINITY : parseCount("--count", options.count);
  const query = toQuery(options);
  const source = options.follow ? toFollowed(api, query, running) : readKept(api, query);
  let printed = 0;
  for await (const event of source) {
    await running.write(`${asJson ? JSON.stringify(event) : toLine(event)}\n`);
    printed += 1;
    if (printed >= count || running.signal.aborted) return;
  }
}

function toQuery({ after, model, session, types }: EventsOptions): URLSearchParams {
  const prefixes = types?.split(",").map((prefix) => (prefix.startsWith("tensord.") ? prefix : `tensord.${prefix}`));
  return new URLSearchParams({
    ...(after !== undefined && { after }),
    ...(model !== undefined && { model }),
    ...(session !== undefined && { session }),
    ...(prefixes !== undefined && { types: prefixes.join(",") }),
  });
}

function toFollowed(api: Api, query: URLSearchParams, { signal, tell }: Running): AsyncGenerator<Event> {
  const onCut = (after: string) =>
    tell(`the stream broke off; it goes on after event ${after} when the server is back`);
  return follow(api, { query, signal, onCut, onResumed: () => tell("the stream goes on") });
}

/** The kept events from `after` on, else from the oldest, page by page. */
export async function* readKept(api: Api, query: URLSearchParams): AsyncGenerator<Event> {
  const page = new URLSearchParams(query);
  page.set("limit", String(pageItems));
  for (let isFull = true; isFull; ) {
    const { items, next_after } = await api.page<{ items: Event[]; next_after: string }>(`/v1/events?${page}`);
    yield* items;
    isFull = items.length === pageItems;
    page.set("after", next_after);
  }
}

/** One line for people: time, type, subject, and what is worth a word. */
export function toLine({ time, type, subject, data }: Event): string {
  return toPrintableLine(`${time}  ${type.replace(/^tensord\./, "").padEnd(18)}  ${toFacts(type, subject, data)}`);
}

function toOperationFacts({ kind, state, source, region, problem, ...bytes }: Operation): string[] {
  const facts = [`${kind} of ${source}`, state, `${toBytes(bytes.done_bytes)} of ${toBytes(bytes.total_bytes)}`];
  if (region !== null) facts.push(`made ${region}`);
  if (problem !== null) facts.push(problem.code);
  return facts;
}

/** Of an elastic pool: which pages, and why. */
function toPageFacts({ model, device_uuid: device, runs, moves, reason }: Event["data"]): string[] {
  const pages = (runs ?? moves ?? []) as readonly { readonly byte_size: number }[];
  const bytes = pages.reduce((sum, { byte_size: size }) => sum + size, 0);
  const why = typeof reason === "string" && reason !== "request" ? [`reason ${reason}`] : [];
  return [`${model} on ${device}`, toBytes(bytes), ...why];
}

/** What each type carries says asyncapi.yaml; what is not there is left out. */
function toFacts(type: string, subject: string | undefined, data: Event["data"]): string {
  if (type === gapType) {
    return `events after ${data.requested_after} are not kept; the next is ${data.first_available} or later: list again`;
  }
  const facts = [subject];
  if (type.startsWith("tensord.model.")) {
    const { limit_bytes: limit } = hostOf(data as unknown as Pick<Model, "pools">);
    facts.push(limit === null ? "no limit" : `limit ${toBytes(limit)}`);
  }
  if (type === "tensord.pool.pressure") {
    const { level, model, used_bytes: used, limit_bytes: limit } = data;
    const pool = typeof model === "string" ? `model ${model}` : "the server";
    return `${level}  ${pool}  ${toBytes(Number(used))} used of ${toBytes(Number(limit))}`;
  }
  if (type.startsWith("tensord.session.")) {
    const {
      name,
      client,
      reason,
      regions,
      freed_bytes: freed,
    } = data as Event["data"] & Pick<Session, "name" | "client">;
    facts.push(toSessionName("-", name, client));
    if (typeof reason === "string")
      facts.push(`reason ${reason}`, inWords(Number(regions), "region"), `${toBytes(Number(freed))} freed`);
  }
  if (type.startsWith("tensord.operation.")) {
    facts.push(...toOperationFacts(data as unknown as Operation));
  }
  if (type.startsWith("tensord.vmm.")) facts.push(...toPageFacts(data));
  if (type.startsWith("tensord.region.")) {
    const { byte_size: byteSize } = (data.storage ?? {}) as { byte_size?: number };
    facts.unshift(`${data.model}/${data.name ?? data.former_name ?? "-"}`);
    if (byteSize !== undefined) facts.push(toBytes(byteSize));
    for (const key of ["reason", "cause"]) if (typeof data[key] === "string") facts.push(`${key} ${data[key]}`);
  }
  return facts.filter((fact) => fact !== undefined).join("  ");
}
