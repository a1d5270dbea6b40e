/** `alloc`: makes a region from the command line, and says how to use it and how to be rid of it. */

import { type FailureCode, TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import type { Region } from "./answers.ts";
import type { Api } from "./api.ts";
import { parseByteSize, parseDurationMs, parseLabel, parseTensor } from "./quantity.ts";
import { toEnd } from "./region-text.ts";
import { toBytes, toJson, toTable } from "./table.ts";

/** What a new region is to be, as it was written. */
export interface TargetOptions {
  readonly model?: string;
  readonly storage?: string;
  readonly private?: boolean;
  readonly hugePages?: string;
  readonly ttl?: string;
  readonly linger?: string;
  readonly persist?: boolean;
  readonly evictable?: boolean;
  readonly onFull?: string;
  readonly deadline?: string;
  readonly ifExists?: string;
  readonly label?: readonly string[];
}

export interface AllocOptions extends TargetOptions {
  readonly size?: string;
  readonly tensor?: readonly string[];
}

/** Tensors that are listed; `--json` has them all. */
const shownTensors = 20;

/** Allocates a region. @returns what it is, for people or as its descriptor. */
export async function alloc(api: Api, name: string, options: AllocOptions, asJson: boolean): Promise<string> {
  const request = { name, ...toContent(options), ...toTarget(options, `allocate ${name}`) };
  const { status, body: region } = await api.ask<Region>("POST", "/v1/regions", request).catch(inOurWords);
  return asJson ? toJson(region) : toText(region, status === 201);
}

/** @param action what the command does, as in "allocate weights". @throws TensordError `owner-required`, `validation-failed`. */
export function toTarget(options: TargetOptions, action: string) {
  const { model, storage, hugePages, ifExists, evictable, label = [] } = options;
  return {
    ...(model !== undefined && { model }),
    ...(storage !== undefined && { storage }),
    ...(options.private === true && { private: true }),
    ...(hugePages !== undefined && { huge_pages: hugePages }),
    ...toOwner(options, action),
    ...toPatience(options),
    ...(evictable === true && { evictable }),
    ...(ifExists !== undefined && { if_exists: ifExists }),
    ...(label.length > 0 && { labels: Object.fromEntries(label.map(parseLabel)) }),
  };
}

/** The server's hints name fields of the request. @throws always. */
export function inOurWords(error: unknown): never {
  const hint = error instanceof TensordError ? hints[error.code] : undefined;
  if (!(error instanceof TensordError) || hint === undefined) throw error;
  const { holders = [] } = error.facts as { holders?: { session: string; used_bytes: number }[] };
  const held = holders.map(({ session, used_bytes }) => `${session} has ${toBytes(used_bytes)}`).join(", ");
  const facts = { ...error.facts, hint: held === "" ? hint : `${hint} Of sessions, ${held}.` };
  throw new TensordError(error.code, error.message, facts, { cause: error });
}

const makeRoom = "Make room with `tensord free` or `tensord rm`, or say --on-full evict or wait.";

const hints: Partial<Record<FailureCode, string>> = {
  "name-taken": "Remove that region with `tensord rm`, choose another name, or say --if-exists attach or replace.",
  "name-claimed": "Wait until it is built, or choose another name.",
  "model-limit-exceeded": makeRoom,
  "pool-full": makeRoom,
  "deadline-exceeded": "Say a longer --deadline, or make room with `tensord free` or `tensord rm`.",
};

function toContent({ size, tensor = [] }: AllocOptions) {
  if (size !== undefined && tensor.length === 0) return { byte_size: parseByteSize("--size", size) };
  if (size === undefined && tensor.length > 0) return { tensors: tensor.map(parseTensor) };
  const state = size === undefined ? "neither --size nor --tensor is there" : "both --size and --tensor are there";
  throw new TensordError("validation-failed", `Cannot size the region: ${state}, want one of them`, {
    hint: "Say --size 1GiB, or --tensor w:F32:1024x1024 once for each tensor.",
  });
}

function toOwner({ ttl, linger, persist }: TargetOptions, action: string) {
  const owners = [
    ...(ttl === undefined ? [] : [{ flag: "--ttl", owner: { ttl_ms: parseDurationMs("--ttl", ttl) } }]),
    ...(linger === undefined
      ? []
      : [{ flag: "--linger", owner: { linger_ms: parseDurationMs("--linger", linger, { min: 0 }) } }]),
    ...(persist === true ? [{ flag: "--persist", owner: { persist } }] : []),
  ];
  const [first] = owners;
  if (first !== undefined && owners.length === 1) return first.owner;
  if (first !== undefined) {
    const said = owners.map(({ flag }) => flag).join(" and ");
    throw new TensordError("validation-failed", `Cannot choose the owner: ${said} are there, want one of them`);
  }
  throw new TensordError(
    "owner-required",
    `Cannot ${action}: it has no owner, and so nothing would end it, want --ttl, --linger or --persist`,
    {
      hint: "Say --ttl 10min for ten minutes, --linger 10min for as long after its last use, or --persist to keep it until `tensord rm`.",
    },
  );
}

/** What to do without room, and for how long to wait for it. */
function toPatience({ onFull, deadline }: TargetOptions) {
  if (deadline !== undefined && onFull !== "wait") {
    throw new TensordError("validation-failed", "Cannot wait until --deadline: --on-full is not wait, want wait");
  }
  return {
    ...(onFull !== undefined && { on_full: onFull }),
    ...(deadline !== undefined && { deadline_ms: parseDurationMs("--deadline", deadline, { max: limits.deadlineMs }) }),
  };
}

function toText(region: Region, isNew: boolean): string {
  const { id, model, name, pending_name: pendingName, storage, state, tensors } = region;
  const hasAliases = tensors.some(({ alias_of }) => alias_of !== null);
  const rows = tensors
    .slice(0, shownTensors)
    .map((tensor) => [
      tensor.name,
      tensor.dtype,
      `[${tensor.shape.join(", ")}]`,
      String(tensor.byte_offset),
      toBytes(tensor.byte_size),
      ...(hasAliases ? [tensor.alias_of ?? "-"] : []),
    ]);
  const lines = [
    `${isNew ? "allocated" : "there already:"} ${model}/${name ?? pendingName}, ${state}, ${toBytes(storage.byte_size)}`,
    `  id      ${id}`,
    `  path    ${storage.path ?? "none: it is reached through the broker, and as bytes over HTTP"}`,
    `  ends    ${toEnd(region)}`,
    `  attach  ${toAttach(region)} in Python; docs/protocol.md for other languages`,
    `  remove  tensord rm ${name === null ? id : model === "default" ? name : `${model}/${name}`}`,
    ...(pendingName === null ? [] : [`  it takes the name ${pendingName} over when it is sealed`]),
    "",
    toTable(["TENSOR", "DTYPE", "SHAPE", "OFFSET", "SIZE", ...(hasAliases ? ["ALIAS OF"] : [])], rows),
    ...(tensors.length > shownTensors ? [`and ${tensors.length - shownTensors} more`] : []),
  ];
  return lines.join("\n");
}

function toAttach({ id, model, name, state }: Region): string {
  const region = name === null ? `client.get_by_id(${JSON.stringify(id)})` : JSON.stringify(name);
  const place = name === null || model === "default" ? "" : `, model=${JSON.stringify(model)}`;
  return `client.attach(${region}${place}${state === "open" ? ", writable=True" : ""})`;
}
