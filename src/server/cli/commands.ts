/** `status`, `ls` and `rm`: what a running server is asked, and how its answers read. */

import type { z } from "@hono/zod-openapi";
import { TensordError } from "../../memory/error.ts";
import { parseRegionId } from "../../memory/naming.ts";
import type * as schemas from "../../routes/schemas.ts";
import type { Api } from "./api.ts";
import { toBytes, toSpan, toTable } from "./table.ts";

type Region = z.infer<typeof schemas.Region>;
type Model = z.infer<typeof schemas.Model>;
type Stats = z.infer<typeof schemas.Stats>;
type Deletion = z.infer<typeof schemas.Deletion>;

/** The books, and each model's. */
export async function status(api: Api, asJson: boolean): Promise<string> {
  const stats = await api.call<Stats>("GET", "/v1/stats");
  const models = await Array.fromAsync(api.list<Model>("/v1/models"));
  if (asJson) return toJson({ ...stats, model_list: models });
  const { bytes, regions, inodes } = stats;
  const used = Math.round((100 * (bytes.used + bytes.draining)) / bytes.limit);
  const lines = [
    `instance   ${stats.instance}, tensord ${stats.version}, epoch ${stats.epoch}`,
    `memory     ${toBytes(bytes.used)} used of ${toBytes(bytes.limit)} (${used} %), ${toBytes(bytes.available)} available`,
    `draining   ${toBytes(bytes.draining)} in ${regions.draining} regions`,
    `elsewhere  ${toBytes(Math.max(0, bytes.unaccounted))} of the file system used by others, ${inodes.free} inodes free`,
    `regions    ${regions.sealed} sealed, ${regions.open + regions.sealing} open, ${regions.creating} in creation`,
    "",
    toTable(
      ["MODEL", "REGIONS", "USED", "DRAINING", "LIMIT"],
      models.map((model) => [
        model.name,
        String(model.regions),
        toBytes(model.used_bytes),
        toBytes(model.draining_bytes),
        model.memory_limit_bytes === null ? "none" : toBytes(model.memory_limit_bytes),
      ]),
    ),
  ];
  return lines.join("\n");
}

export interface ListOptions {
  readonly model?: string;
  readonly state?: string;
  readonly label?: string;
}

/** Every region, one a line. */
export async function list(api: Api, options: ListOptions, asJson: boolean): Promise<string> {
  const regions = await Array.fromAsync(api.list<Region>(`/v1/regions?${new URLSearchParams({ ...options })}`));
  if (asJson) return toJson(regions);
  if (regions.length === 0) return "no regions";
  const rows = regions.map((region) => [
    region.id,
    region.model,
    region.name ?? "-",
    region.state,
    toBytes(region.storage.byte_size),
    String(region.tensors.length),
    toOwner(region),
    `${toSpan(Date.now() - Date.parse(region.created_at))} ago`,
  ]);
  return toTable(["REGION", "MODEL", "NAME", "STATE", "SIZE", "TENSORS", "OWNER", "CREATED"], rows);
}

function toOwner({ owner, expires_at }: Region): string {
  if (owner.kind === "persist" || expires_at === null) return "persist";
  const leftMs = Date.parse(expires_at) - Date.now();
  return leftMs > 0 ? `ttl, ${toSpan(leftMs)} left` : "ttl, over";
}

/**
 * Deletes regions by id, `name` (of the default model) or `model/name`.
 * @throws after all were tried, if one could not be deleted.
 */
export async function remove(api: Api, targets: readonly string[], asJson: boolean): Promise<string> {
  const results: { region: string; state: string; freed_bytes: number }[] = [];
  const failures: unknown[] = [];
  for (const target of targets) {
    try {
      const id = parseRegionId(target) === undefined ? await toId(api, target) : target;
      results.push({ region: target, ...(await api.call<Deletion>("DELETE", `/v1/regions/${id}`)) });
    } catch (error) {
      failures.push(error);
    }
  }
  const text = asJson
    ? toJson(results)
    : results.map(({ region, state, freed_bytes }) => `${region}: ${state}${toRest(state, freed_bytes)}`).join("\n");
  if (failures.length === 0) return text;
  if (text !== "" && results.length > 0) process.stdout.write(`${text}\n`);
  if (failures.length === 1) throw failures[0];
  throw new AggregateError(failures, `Cannot delete ${failures.length} of ${targets.length} regions`);
}

function toRest(state: string, freedBytes: number): string {
  return state === "deleted"
    ? `, ${toBytes(freedBytes)} freed`
    : ", a process still maps it; its bytes go with the last one";
}

async function toId(api: Api, target: string): Promise<string> {
  const parts = target.split("/");
  const [model, name] = parts.length === 1 ? ["default", parts[0]] : parts;
  if (parts.length > 2 || model === undefined || name === undefined) {
    throw new TensordError(
      "validation-failed",
      `Cannot delete ${JSON.stringify(target)}: want a region's id, name or model/name`,
    );
  }
  const path = `/v1/models/${encodeURIComponent(model)}/regions/${encodeURIComponent(name)}`;
  return (await api.call<Region>("GET", path)).id;
}

export function toJson(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
