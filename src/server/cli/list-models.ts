/** `ls --models`: every model as a unit, one a line: of which files, how large, and by how many workers it is used. */

import { fileLabel } from "../../loaders/file-label.ts";
import type { Model, RegionFacts } from "./answers.ts";
import type { Api } from "./api.ts";
import type { ListOptions } from "./list.ts";
import { toBytes, toJson, toTable } from "./table.ts";

/** A model, and what its regions are. */
interface ListedModel extends Model {
  /** Of all of its regions, mapped files among them. */
  readonly byte_size: number;
  /** Those that its regions were loaded from, by name. */
  readonly files: readonly string[];
}

export async function listModels(
  api: Api,
  { model: only }: Pick<ListOptions, "model">,
  asJson: boolean,
): Promise<string> {
  const filter = only === undefined ? "" : `?${new URLSearchParams({ model: only })}`;
  const regions = await Array.fromAsync(api.list<RegionFacts>(`/v1/regions${filter}`));
  const models = await Array.fromAsync(api.list<Model>("/v1/models"));
  const byModel = Map.groupBy(regions, ({ model }) => model);
  const listed = models
    .filter(({ name }) => only === undefined || name === only)
    .map((model) => withFiles(model, byModel.get(model.name) ?? []));
  return asJson ? toJson(listed) : toTable(head, listed.map(toRow));
}

function withFiles(model: Model, regions: readonly RegionFacts[]): ListedModel {
  const files = new Set(regions.flatMap(({ labels }) => labels[fileLabel] ?? []));
  return { ...model, byte_size: sum(regions.map(({ storage }) => storage.byte_size)), files: [...files].toSorted() };
}

const head = ["MODEL", "REGIONS", "SIZE", "USED", "WORKERS", "FILES"];

/** What drains takes memory too. */
function toRow({ name, regions, byte_size, pools, workers, files }: ListedModel): string[] {
  const used = sum(pools.map(({ used_bytes, draining_bytes }) => used_bytes + draining_bytes));
  return [name, String(regions), toBytes(byte_size), toBytes(used), String(workers), files.join(", ") || "-"];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
