/** `load`: has the server load model files into regions, one after the other, and shows how far it is; Ctrl-C cancels it. */

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { TensordError } from "../../memory/error.ts";
import { type TargetOptions, toTarget } from "./alloc.ts";
import type { Operation, RegionDetail } from "./answers.ts";
import type { Api } from "./api.ts";
import { toResult } from "./copy.ts";
import { toEnd } from "./region-text.ts";
import { toBytes, toJson } from "./table.ts";
import type { Running } from "./until-stopped.ts";

/** As they were written. */
export interface LoadOptions extends TargetOptions {
  readonly name?: string;
  readonly as?: string;
  readonly raw?: boolean;
  readonly mode?: "auto" | "map" | "copy";
  readonly device?: string;
  readonly wait: boolean;
}

/**
 * Loads files, as the server sees them: by path, or as a `file://` or `s3://` URI. Without an owner their regions stay until they are deleted, or
 * until room is needed and nobody maps them.
 * @throws what the first load that fails fails with; those before it stay.
 */
export async function load(
  api: Api,
  paths: readonly string[],
  { device, wait, name, as: version, raw, mode, ...options }: LoadOptions,
  asJson: boolean,
  running: Running,
): Promise<string> {
  if (paths.length > 1 && name !== undefined) {
    throw new TensordError(
      "validation-failed",
      `Cannot load ${paths.length} files as ${name}: want one file with --name`,
      {
        hint: "Leave --name out: each region is called as its file. --model says which model they are of.",
      },
    );
  }
  const { model = "default", ...target } = toTarget(withOwner(options), "load");
  const done: (Operation | string)[] = [];
  for (const path of paths) {
    const request = {
      uri: /^(file|s3):\/\//.test(path) ? path : pathToFileURL(resolve(path)).href,
      ...target,
      ...(name !== undefined && { name }),
      ...(version !== undefined && { version }),
      ...(raw === true && { format: "raw" }),
      ...(mode !== undefined && { mode }),
      ...(device !== undefined && { storage: "cuda_vmm", device_uuid: device }),
    };
    const begun = api.call<Operation>("POST", `/v1/models/${encodeURIComponent(model)}/load`, request);
    const operation = await toResult(api, begun, wait, running);
    done.push(asJson ? operation : await toText(api, path, operation));
  }
  return asJson ? toJson(done) : done.join("\n");
}

/** What can be loaded again may go when there is no room. */
function withOwner(options: TargetOptions): TargetOptions {
  const { ttl, linger, persist } = options;
  const isSaid = ttl !== undefined || linger !== undefined || persist === true;
  return isSaid ? options : { ...options, persist: true, evictable: true };
}

async function toText(api: Api, path: string, operation: Operation): Promise<string> {
  const region = operation.region === null ? undefined : await api.findRegion(operation.region);
  if (region === undefined) return `${operation.id} has begun; \`tensord operations\` tells how far it is`;
  return toLines(path, region, operation);
}

function toLines(path: string, region: RegionDetail, { mode, reason }: Operation): string {
  const { id, model, name, version, state, storage, tensor_count: count } = region;
  const done = mode === "map" ? "mapped" : "loaded";
  return [
    `${done} ${path} to ${model}/${name}, ${state}, ${count} ${count === 1 ? "tensor" : "tensors"}, ${toBytes(storage.byte_size)}`,
    `  id       ${id}`,
    `  version  ${version}`,
    `  path     ${storage.path ?? "none: it is reached through the broker, and as bytes over HTTP"}`,
    ...(reason === null ? [] : [`  mode     ${mode}: ${reason}`]),
    `  ends     ${toEnd(region)}`,
  ].join("\n");
}
