/** `status`: the books, each model's and the largest sessions', of a running server or as the next one will find them. */

import { count } from "../../memory/doctor/words.ts";
import { hostPool } from "../../memory/naming.ts";
import type { InstanceLocation } from "../../memory/storage/instance-directory.ts";
import type { Model, Session, Stats } from "./answers.ts";
import type { Api } from "./api.ts";
import { describeLeftovers, type Offline, readOffline } from "./offline.ts";
import { devicesOf, hostOf } from "./pools.ts";
import { sessionHead, toSessionName, toSessionRow } from "./region-text.ts";
import { toBytes, toJson, toTable } from "./table.ts";

/** Sessions that are listed; `--json` has them all. */
const shownSessions = 10;

/** The books of a running server. */
export async function status(api: Api, asJson: boolean): Promise<string> {
  const stats = await api.call<Stats>("GET", "/v1/stats");
  const models = await Array.fromAsync(api.list<Model>("/v1/models"));
  const sessions = await Array.fromAsync(api.list<Session>("/v1/sessions"));
  sessions.sort((a, b) => b.used_bytes - a.used_bytes);
  if (asJson) return toJson({ ...stats, model_list: models, session_list: sessions });
  const { regions, inodes } = stats;
  const host = hostOf(stats);
  const limit = host.limit_bytes ?? host.used_bytes + host.draining_bytes + host.available_bytes;
  const used = Math.round((100 * (host.used_bytes + host.draining_bytes)) / limit);
  const ready = host.reserve_bytes > 0 ? `, ${toBytes(host.reserve_bytes)} of it ready` : "";
  return [
    `instance   ${stats.instance}, tensord ${stats.version}, epoch ${stats.epoch}`,
    `memory     ${toBytes(host.used_bytes)} used of ${toBytes(limit)} (${used} %), ${toBytes(host.available_bytes)} available${ready}`,
    ...devicesOf(stats).map(
      (pool) =>
        `device     ${toBytes(pool.used_bytes + pool.draining_bytes)} used of ${toSize(pool.limit_bytes)} on ${pool.pool}`,
    ),
    `draining   ${toBytes(host.draining_bytes)} in ${count(regions.draining, "region")}`,
    `elsewhere  ${toBytes(Math.max(0, host.unaccounted_bytes ?? 0))} of the file system used by others, ${inodes.free} inodes free`,
    `regions    ${regions.sealed} sealed, ${regions.open + regions.sealing} open, ${regions.creating} in creation`,
    `sessions   ${stats.sessions}, with ${count(stats.claims, "claim")}; ${count(stats.leases, "lease")} by request`,
    ...toModels(models),
    ...toSessions(sessionHead, sessions.map(toSessionRow)),
  ].join("\n");
}

/** What the next server of the instance will find. @throws TensordError if one runs. */
export async function statusOffline(location: InstanceLocation, asJson: boolean): Promise<string> {
  const offline = await readOffline(location);
  if (asJson) return toJson({ instance: location.instance, ...toOfflineStatus(offline) });
  const { regions, bytes, sessions } = offline;
  const counts = (state: string) => regions.filter((region) => region.state === state).length;
  const drainingCount = counts("draining");
  const rows = sessions.map(({ id, name, client, regions, used_bytes, quota_bytes, ttl_ms }) => [
    id,
    toSessionName("-", name, client),
    String(regions),
    toBytes(used_bytes),
    quota_bytes === null ? "none" : toBytes(quota_bytes),
    `${ttl_ms / 1000} s after the next start`,
  ]);
  return [
    `instance   ${location.instance}, offline: its server is not running`,
    `memory     ${toBytes(bytes.used)} used, ${toBytes(offline.space.freeBytes)} of the file system free`,
    ...offline.devices.map(({ pool, used, draining }) => `device     ${toBytes(used + draining)} used on ${pool}`),
    `draining   ${toBytes(bytes.draining)} in ${count(drainingCount, "region")}`,
    `regions    ${counts("sealed")} sealed, ${regions.length - counts("sealed") - drainingCount} open`,
    `mapped     ${count(regions.filter((region) => region.in_use).length, "region")}`,
    ...describeLeftovers(offline),
    ...toModels(offline.models),
    ...toSessions(sessionHead, rows),
  ].join("\n");
}

/** As a running server's stats spell it, where they have the same. */
function toOfflineStatus({ regions, bytes, devices, models, sessions, orphans, lost, space }: Offline) {
  const counts = { open: 0, sealed: 0, draining: 0 };
  for (const { state } of regions) counts[state === "sealed" || state === "draining" ? state : "open"] += 1;
  return {
    offline: true,
    pools: [{ pool: hostPool, ...bytes }, ...devices].map(({ pool, used, draining }) => ({
      pool,
      used_bytes: used,
      draining_bytes: draining,
    })),
    journal_bytes: bytes.store,
    orphan_bytes: bytes.orphans,
    inodes: { used: space.usedInodes, free: space.freeInodes },
    regions: counts,
    mapped: regions.filter((region) => region.in_use).length,
    orphans: orphans.length,
    lost,
    model_list: models,
    session_list: sessions,
  };
}

/** null: its driver has not told yet. */
function toSize(bytes: number | null): string {
  return bytes === null ? "an unknown size" : toBytes(bytes);
}

type ModelUse = Pick<Model, "name" | "regions" | "pools">;

function toModels(models: readonly ModelUse[]): string[] {
  const rows = models.map((model) => {
    const { used_bytes, draining_bytes, limit_bytes } = hostOf(model);
    const limit = limit_bytes === null ? "none" : toBytes(limit_bytes);
    return [model.name, String(model.regions), toBytes(used_bytes), toBytes(draining_bytes), limit];
  });
  return ["", toTable(["MODEL", "REGIONS", "USED", "DRAINING", "LIMIT"], rows)];
}

function toSessions(head: readonly string[], rows: readonly string[][]): string[] {
  if (rows.length === 0) return [];
  const more = rows.length > shownSessions ? [`and ${rows.length - shownSessions} more`] : [];
  return ["", toTable(head, rows.slice(0, shownSessions)), ...more];
}
