/** `alloc`: makes a region from the command line, and says how to use it and how to be rid of it. */

import type { z } from "@hono/zod-openapi";
import { TensordError } from "../../memory/error.ts";
import type * as schemas from "../../routes/schemas.ts";
import type { Api } from "./api.ts";
import { toJson } from "./commands.ts";
import { parseByteSize, parseDurationMs, parseLabel, parseTensor } from "./quantity.ts";
import { toBytes, toEnd, toTable } from "./table.ts";

type Region = z.infer<typeof schemas.Region>;

/** As they were written. */
export interface AllocOptions {
  readonly model?: string;
  readonly size?: string;
  readonly tensor?: readonly string[];
  readonly ttl?: string;
  readonly persist?: boolean;
  readonly ifExists?: string;
  readonly label?: readonly string[];
}

/** Tensors that are listed; `--json` has them all. */
const shownTensors = 20;

/** Allocates a region. @returns what it is, for people or as its descriptor. */
export async function alloc(api: Api, name: string, options: AllocOptions, asJson: boolean): Promise<string> {
  const { model, ifExists, label = [] } = options;
  const request = {
    ...(model !== undefined && { model }),
    name,
    ...toContent(options),
    ...toOwner(options, name),
    ...(ifExists !== undefined && { if_exists: ifExists }),
    ...(label.length > 0 && { labels: Object.fromEntries(label.map(parseLabel)) }),
  };
  const { status, body: region } = await api.ask<Region>("POST", "/v1/regions", request).catch(inOurWords);
  return asJson ? toJson(region) : toText(region, status === 201);
}

/** The server's hint names fields of the request. @throws always. */
function inOurWords(error: unknown): never {
  if (!(error instanceof TensordError) || error.code !== "name-taken") throw error;
  const hint = "Remove that region with `tensord rm`, choose another name, or say --if-exists attach or replace.";
  throw new TensordError(error.code, error.message, { ...error.facts, hint }, { cause: error });
}

function toContent({ size, tensor = [] }: AllocOptions) {
  if (size !== undefined && tensor.length === 0) return { byte_size: parseByteSize("--size", size) };
  if (size === undefined && tensor.length > 0) return { tensors: tensor.map(parseTensor) };
  const state = size === undefined ? "neither --size nor --tensor is there" : "both --size and --tensor are there";
  throw new TensordError("validation-failed", `Cannot size the region: ${state}, want one of them`, {
    hint: "Say --size 1GiB, or --tensor w:F32:1024x1024 once for each tensor.",
  });
}

function toOwner({ ttl, persist }: AllocOptions, name: string) {
  if (ttl !== undefined && !persist) return { ttl_ms: parseDurationMs("--ttl", ttl) };
  if (ttl === undefined && persist) return { persist: true };
  if (ttl !== undefined) {
    const detail = "Cannot choose the owner: both --ttl and --persist are there, want one of them";
    throw new TensordError("validation-failed", detail);
  }
  throw new TensordError(
    "owner-required",
    `Cannot allocate ${name}: it has no owner, and so nothing would end it, want --ttl or --persist`,
    { hint: "Say --ttl 10min for ten minutes, or --persist to keep it until `tensord rm`." },
  );
}

function toText(region: Region, isNew: boolean): string {
  const { id, model, name, pending_name: pendingName, storage, state, tensors } = region;
  const rows = tensors
    .slice(0, shownTensors)
    .map((tensor) => [
      tensor.name,
      tensor.dtype,
      `[${tensor.shape.join(", ")}]`,
      String(tensor.byte_offset),
      toBytes(tensor.byte_size),
    ]);
  const lines = [
    `${isNew ? "allocated" : "there already:"} ${model}/${name ?? pendingName}, ${state}, ${toBytes(storage.byte_size)}`,
    `  id      ${id}`,
    `  path    ${storage.path}`,
    `  ends    ${toEnd(region.expires_at)}`,
    `  attach  ${toAttach(region)} in Python; docs/protocol.md for other languages`,
    `  remove  tensord rm ${name === null ? id : model === "default" ? name : `${model}/${name}`}`,
    ...(pendingName === null ? [] : [`  it takes the name ${pendingName} over when it is sealed`]),
    "",
    toTable(["TENSOR", "DTYPE", "SHAPE", "OFFSET", "SIZE"], rows),
    ...(tensors.length > shownTensors ? [`and ${tensors.length - shownTensors} more`] : []),
  ];
  return lines.join("\n");
}

function toAttach({ id, model, name, state }: Region): string {
  const region = name === null ? `client.get_by_id(${JSON.stringify(id)})` : JSON.stringify(name);
  const place = name === null || model === "default" ? "" : `, model=${JSON.stringify(model)}`;
  return `client.attach(${region}${place}${state === "open" ? ", writable=True" : ""})`;
}
