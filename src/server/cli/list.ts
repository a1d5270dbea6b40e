/** `ls`: every region, one a line, of a running server or of an instance whose server is not running. */

import { fileLabel } from "../../loaders/file-label.ts";
import { TensordError } from "../../memory/error.ts";
import type { InstanceLocation } from "../../memory/storage/instance-directory.ts";
import type { RegionDetail, RegionFacts } from "./answers.ts";
import type { Api } from "./api.ts";
import { describeLeftovers, type OfflineRegion, readOffline } from "./offline.ts";
import { parseLabel } from "./quantity.ts";
import { toHolders, toOwner } from "./region-text.ts";
import { toBytes, toJson, toSpan, toTable } from "./table.ts";

/** As they were written. */
export interface ListOptions {
  readonly model?: string;
  readonly session?: string;
  readonly state?: string;
  readonly label?: string;
  readonly sort?: string;
  readonly holders?: boolean;
}

/** A region as either source tells it. */
type Listed = Omit<RegionFacts, "last_used_at">;
type Column<Item> = readonly [head: string, toCell: (region: Item) => string];

/** Questions for holders that are on their way at once. */
const questionsAtOnce = 16;

/** The regions of a running server. */
export async function list(api: Api, options: ListOptions, asJson: boolean): Promise<string> {
  const { model, session, state, label, sort = "age" } = options;
  const filters = Object.entries({ model, session, state, label }).filter(([, value]) => value);
  const query = new URLSearchParams(filters as [string, string][]);
  const regions = await Array.fromAsync(api.list<RegionFacts>(`/v1/regions?${query}`));
  regions.sort(sort === "used" ? (a, b) => Date.parse(a.last_used_at) - Date.parse(b.last_used_at) : toOrder(sort));
  if (options.holders !== true) return asJson ? toJson(regions) : toText([...columns, usedColumn], regions);
  const details = await askEach(api, regions);
  return asJson ? toJson(details) : toText([...columns, holdersColumn], details);
}

/** The regions of an instance whose server is not running. @throws TensordError if one is. */
export async function listOffline(location: InstanceLocation, options: ListOptions, asJson: boolean): Promise<string> {
  const { model, session, state, label, sort = "age" } = options;
  if (sort === "used") {
    throw new TensordError(
      "validation-failed",
      "Cannot sort by use: only a running server knows it, want size, age or name",
    );
  }
  const [key, value] = label === undefined ? [] : parseLabel(label);
  const offline = await readOffline(location);
  const regions = offline.regions
    .filter((region) => model === undefined || region.model === model)
    .filter((region) => session === undefined || (region.session === session && region.state !== "draining"))
    .filter((region) => state === undefined || region.state === state)
    .filter(({ labels }) => key === undefined || (Object.hasOwn(labels, key) && labels[key] === value))
    .sort(toOrder(sort));
  if (asJson) return toJson(regions);
  const lines = [toText([...columns, mappedColumn], regions), ...describeLeftovers(offline)];
  return [`offline: the server of instance ${location.instance} is not running`, ...lines].join("\n");
}

const columns: readonly Column<Listed>[] = [
  ["REGION", ({ id }) => id],
  ["MODEL", ({ model }) => model],
  ["NAME", ({ name }) => name ?? "-"],
  ["STATE", ({ state }) => state],
  ["SIZE", ({ storage }) => toBytes(storage.byte_size) + toPointing(storage)],
  ["TENSORS", ({ tensor_count }) => String(tensor_count)],
  ["OWNER", toOwner],
  ["CREATED", ({ created_at }) => toAgo(created_at)],
];
/** Only where there is a region of a loaded file. */
const fileColumn: Column<Pick<Listed, "labels">> = ["FILE", ({ labels }) => labels[fileLabel] ?? "-"];
const usedColumn: Column<RegionFacts> = ["USED", ({ last_used_at }) => toAgo(last_used_at)];
const holdersColumn: Column<RegionDetail> = ["HOLDERS", (region) => toHolders(region).join("; ") || "-"];
const mappedColumn: Column<OfflineRegion> = [
  "MAPPED",
  ({ in_use, has_writers }) => (has_writers ? "for writing" : in_use ? "yes" : "no"),
];

/** Of what takes no memory: that the region is a file, and what has become of that. */
function toPointing({ kind, changed }: Listed["storage"]): string {
  if (kind !== "file") return "";
  return changed === null ? " (mapped)" : ` (mapped, ${changed.replace("-", " ")})`;
}

function toAgo(time: string): string {
  return `${toSpan(Date.now() - Date.parse(time))} ago`;
}

function toText<Item extends Pick<Listed, "labels">>(
  always: readonly Column<Item>[],
  regions: readonly Item[],
): string {
  if (regions.length === 0) return "no regions";
  const shown = regions.some(({ labels }) => labels[fileLabel] !== undefined) ? [...always, fileColumn] : always;
  return toTable(
    shown.map(([head]) => head),
    regions.map((region) => shown.map(([, toCell]) => toCell(region))),
  );
}

/** Largest first, else oldest first, else by model and name with those without a name last. */
function toOrder(sort: string): (a: Listed, b: Listed) => number {
  if (sort === "size") return (a, b) => b.storage.byte_size - a.storage.byte_size;
  if (sort === "age") return (a, b) => Date.parse(a.created_at) - Date.parse(b.created_at);
  return (a, b) =>
    compare(a.model, b.model) || Number(a.name === null) - Number(b.name === null) || compare(a.name, b.name);
}

function compare(a: string | null, b: string | null): number {
  return (a ?? "") < (b ?? "") ? -1 : Number(a !== b);
}

/** Each region with who maps it, in the same order; those that went since they were listed are left out. */
async function askEach(api: Api, regions: readonly RegionFacts[]): Promise<RegionDetail[]> {
  const details: RegionDetail[] = [];
  for (let i = 0; i < regions.length; i += questionsAtOnce) {
    const slice = regions.slice(i, i + questionsAtOnce);
    const found = await Promise.all(slice.map(({ id }) => api.findRegion(id)));
    details.push(...found.filter((detail) => detail !== undefined));
  }
  return details;
}
