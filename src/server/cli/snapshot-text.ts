/** How a snapshot reads: a function of it and of the room there is. */

import { count } from "../../memory/doctor/words.ts";
import type { Model, RegionDetail, RegionFacts, Stats } from "./answers.ts";
import { toLine } from "./events.ts";
import { devicesOf, hostOf } from "./pools.ts";
import { sessionHead, toEnd, toKeeping, toSessionRow } from "./region-text.ts";
import type { Snapshot } from "./snapshot.ts";
import { toBytes, toTable } from "./table.ts";

const barCharacters = 40;

/** @param rows how many of each kind are listed. */
export function toLines(snapshot: Snapshot, rows: number): string[] {
  const { stats, time, models, sessions, regions, more_regions: more, draining, events } = snapshot;
  const largest = `LARGEST REGIONS${more ? " of the 1000 oldest; there are more" : ""}`;
  return [
    `tensord ${stats.version}  instance ${stats.instance}  epoch ${stats.epoch}  ${time}`,
    ...toBooks(stats),
    ...toSection("MODELS BY USE", toRows(modelHead, models, toModelRow, rows)),
    ...toSection("SESSIONS BY USE", toRows(sessionHead, sessions, toSessionRow, rows)),
    ...toSection(largest, toRows(regionHead, regions, toRegionRow, rows)),
    ...toSection("DRAINING", toRows(drainHead, draining, toDrainRow, rows)),
    ...toSection("EVENTS", events.slice(-rows).map(toLine)),
  ];
}

function toBooks(stats: Stats): string[] {
  const { regions, inodes, sessions, claims, leases } = stats;
  const { used_bytes: used, draining_bytes: draining, limit_bytes, available_bytes: available } = hostOf(stats);
  const limit = limit_bytes ?? used + draining + available;
  return [
    `memory   ${toBar(used, draining, limit)} ${toBytes(used)} used, ${toBytes(draining)} draining of ${toBytes(limit)}`,
    `         ${toBytes(available)} available, ${inodes.free} inodes free`,
    ...devicesOf(stats).map(toDeviceLine),
    `regions  ${regions.sealed} sealed, ${regions.open + regions.sealing} open, ${regions.creating} in creation, ${regions.draining} draining`,
    `sessions ${sessions}, with ${count(claims, "claim")}; ${count(leases, "lease")} by request`,
  ];
}

function toDeviceLine({
  pool,
  used_bytes: used,
  draining_bytes: draining,
  limit_bytes: limit,
}: Stats["pools"][number]) {
  const whole = limit === null ? "an unknown size" : toBytes(limit);
  return `device   ${toBar(used, draining, limit ?? used + draining)} ${toBytes(used)} used, ${toBytes(draining)} draining of ${whole} on ${pool}`;
}

/** `[####==----]`: used, draining, and the rest. What is there at all shows. */
export function toBar(used: number, draining: number, limit: number): string {
  const toCells = (bytes: number) => (limit === 0 ? barCharacters : Math.ceil((barCharacters * bytes) / limit));
  const usedCells = Math.min(toCells(used), barCharacters);
  const drainingCells = Math.min(toCells(draining), barCharacters - usedCells);
  return `[${"#".repeat(usedCells)}${"=".repeat(drainingCells)}${"-".repeat(barCharacters - usedCells - drainingCells)}]`;
}

function toSection(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ["", title, ...lines.map((line) => `  ${line}`)];
}

function toRows<Item>(
  head: readonly string[],
  items: readonly Item[],
  toRow: (item: Item) => string[],
  rows: number,
): string[] {
  return items.length === 0 ? [] : toTable(head, items.slice(0, rows).map(toRow)).split("\n");
}

const modelHead = ["MODEL", "REGIONS", "USED", "DRAINING", "LIMIT"];

function toModelRow(model: Model): string[] {
  const { name, regions } = model;
  const { used_bytes, draining_bytes, limit_bytes: limit } = hostOf(model);
  return [
    name,
    String(regions),
    toBytes(used_bytes),
    toBytes(draining_bytes),
    limit === null ? "none" : toBytes(limit),
  ];
}

const regionHead = ["REGION", "NAME", "STATE", "SIZE", "ENDS"];

function toRegionRow(region: RegionFacts): string[] {
  const { id, model, name, state, storage } = region;
  return [id, `${model}/${name ?? "-"}`, state, toBytes(storage.byte_size), state === "draining" ? "-" : toEnd(region)];
}

const drainHead = ["REGION", "MODEL", "SIZE", "REASON", "WAITS FOR"];

function toDrainRow(region: RegionDetail): string[] {
  const { id, model, storage, drain } = region;
  return [id, model, toBytes(storage.byte_size), drain?.reason ?? "-", toKeeping(region) ?? "its turn"];
}
