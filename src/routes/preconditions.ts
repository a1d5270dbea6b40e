/**
 * Conditional requests (RFC 9110, section 13): the ETags of regions, their bytes and models, and the one place that reads
 * If-Match and If-None-Match. A condition counts where the request would succeed without it, so routes ask after whatever
 * else would refuse it, and in the turn that then does it. If-Range is about ranges, and theirs.
 */

import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TensordError } from "../memory/error.ts";
import { describe, idOf } from "../memory/journal/region-record.ts";
import { quote } from "../memory/naming.ts";
import { type ElasticPool, idOfPool } from "../memory/state/elastic.ts";
import { actions, hasEnded, type LifecycleEvent, nextState } from "../memory/state/lifecycle.ts";
import type { Model, Region } from "../memory/state/region.ts";
import { etag } from "./answer-headers.ts";
import type { Environment } from "./environment.ts";

/** What a request is about, as conditions know it. */
export interface Tagged {
  /** How messages call it. */
  readonly what: string;
  /** Without quotes: the one that answers carry, then those that mean the same in a request. None: nothing stands for it. */
  readonly tags: readonly string[];
}

const ifMatch = z.string().optional().openapi({
  description: "Only if the ETag is one of these, or, with `*`, whatever it is; else 412.",
  example: '"reg_abcdefghijklmnopqrstuvwxyz.3"',
});
const toIfNoneMatch = (otherwise: string) =>
  z
    .string()
    .optional()
    .openapi({ description: `Only if the ETag is none of these; else ${otherwise}.`, example: '"other"' });

/** The headers of requests that change something. */
export const ChangeConditions = z.object({ "if-match": ifMatch, "if-none-match": toIfNoneMatch("412") });

/** The headers of requests that read. */
export const ReadConditions = z.object({ "if-match": ifMatch, "if-none-match": toIfNoneMatch("304, without a body") });

/** The answer to who has it already. */
export const notModified = {
  304: { description: "The client has it: an ETag of If-None-Match is the one of today.", headers: etag },
};

/**
 * A region by its id: id and revision. No other region has the id, so the revision alone will do in a request. Bytes are
 * not in it, nor what is measured when somebody asks: who maps the region.
 */
export function toTaggedRegion(region: Region): Tagged {
  const { what, tags } = toTaggedName(region);
  return { what, tags: [...tags, `${region.revision}`] };
}

/** A region by its name, under which the next build may have the same revision. */
export function toTaggedName(region: Region): Tagged {
  return { what: describe(region), tags: [`${idOf(region)}.${region.revision}`] };
}

/** A region's bytes, which are final once it is sealed. */
export function toTaggedBytes(region: Region): Tagged {
  return { what: `the bytes of ${describe(region)}`, tags: region.state === "sealed" ? [idOf(region)] : [] };
}

/** A model: when it was registered, since its name may be registered again, and its revision, which will do. */
export function toTaggedModel({ name, createdAt, revision }: Model): Tagged {
  return { what: `model ${quote(name)}`, tags: [`${createdAt.toString(36)}.${revision}`, `${revision}`] };
}

/** An elastic pool: its id and revision, which is of its limits alone; the revision will do. */
export function toTaggedPool(pool: ElasticPool): Tagged {
  const { model, deviceUuid, revision } = pool;
  return {
    what: `the elastic pool of model ${quote(model.name)} on ${deviceUuid}`,
    tags: [`${idOfPool(pool)}.${revision}`, `${revision}`],
  };
}

/**
 * Gives the answer its ETag. No cache is to keep it: its next request would be answered with 304 while what is measured, and
 * no part of the ETag, is another.
 */
export function setTag(c: Context<Environment>, tagged: Tagged): void {
  setBytesTag(c, tagged);
  c.header("Cache-Control", "no-store");
}

/** Gives the answer the ETag of bytes, which is exact. */
export function setBytesTag(c: Context<Environment>, { tags: [tag] }: Tagged): void {
  if (tag !== undefined) c.header("ETag", `"${tag}"`);
}

/**
 * Whether a client that asks to read has it already, so that 304 is the answer.
 * @throws TensordError `revision-mismatch` if it wants another one, `validation-failed`.
 */
export function isKnown(c: Context<Environment>, tagged: Tagged): boolean {
  checkIfMatch(c, "read", tagged);
  return meetsNone(c, tagged);
}

/** @throws TensordError `revision-mismatch` if the client knows something else than what it would change. */
export function checkConditions(c: Context<Environment>, action: string, tagged: Tagged): void {
  checkIfMatch(c, action, tagged);
  if (!meetsNone(c, tagged)) return;
  throw mismatch(action, tagged, "If-None-Match wants another", "Leave If-None-Match out to do it all the same.");
}

/**
 * As `checkConditions`, for what `event` does to a region. One that has ended is deleted whatever the condition, so that a
 * delete whose answer was lost can be repeated.
 * @throws TensordError also what the lifecycle says of `event`.
 */
export function checkRegion(c: Context<Environment>, region: Region, event: LifecycleEvent, tagged: Tagged): void {
  nextState(region, event);
  if (!hasEnded(region.state)) checkConditions(c, actions[event], tagged);
}

function checkIfMatch(c: Context<Environment>, action: string, tagged: Tagged): void {
  const wanted = parseTags("If-Match", c.req.header("if-match"));
  if (wanted === undefined || wanted === "*" || wanted.some((tag) => tagged.tags.includes(tag))) return;
  throw mismatch(
    action,
    tagged,
    `If-Match wants ${show(wanted)}`,
    "Somebody changed it meanwhile. Read it again, and decide anew on what is there now.",
  );
}

/** Whether If-None-Match names what is there. */
function meetsNone(c: Context<Environment>, { tags }: Tagged): boolean {
  const known = parseTags("If-None-Match", c.req.header("if-none-match"));
  return known !== undefined && (known === "*" || known.some((tag) => tags.includes(tag)));
}

function mismatch(action: string, { what, tags: [tag] }: Tagged, why: string, hint: string): TensordError {
  const state = tag === undefined ? "it has no ETag before it is sealed" : `its ETag is "${tag}"`;
  return new TensordError("revision-mismatch", `Cannot ${action} ${what}: ${state}, ${why}`, { hint });
}

// An entity tag, or no element, of a list: RFC 9110, 8.8.3 and 5.6.1.
const element = /[\t ]*(?:(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)"[\t ]*)?(?:,|$)/y;

/**
 * The tags of a list, without quotes. A weak one stands for itself without `W/`: we give out none, so it is one of ours that
 * a proxy weakened, which changed the coding of an answer and not what the tag stands for.
 * @throws TensordError `validation-failed`: what cannot be read must not be done by a guess.
 */
function parseTags(name: string, value: string | undefined): "*" | readonly string[] | undefined {
  if (value === undefined) return undefined;
  if (value.trim() === "*") return "*";
  const tags: string[] = [];
  for (element.lastIndex = 0; element.lastIndex < value.length; ) {
    const match = element.exec(value);
    if (match === null) throw unreadable(name, value);
    if (match[1] !== undefined) tags.push(match[1]);
  }
  if (tags.length === 0) throw unreadable(name, value);
  return tags;
}

function unreadable(name: string, value: string): TensordError {
  const shown = JSON.stringify(value.slice(0, 80));
  return new TensordError("validation-failed", `Cannot read ${name}: ${shown} is no ETag, nor a list of them, nor *`, {
    hint: 'Send the ETag of the answer before with its quotes, such as "3", or leave the header out.',
  });
}

function show(tags: readonly string[]): string {
  const shown = tags.slice(0, 3).map((tag) => JSON.stringify(tag.slice(0, 80)));
  return `${shown.join(" or ")}${tags.length > shown.length ? " or others" : ""}`;
}
