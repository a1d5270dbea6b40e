/** Model files that the server loads: what is asked of it, and where the file is. */

import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { TensordError } from "../errors.ts";
import type { NewLoad } from "../http/api.ts";
import type { RegionDescriptor } from "../http/wire.ts";
import { defaultModel, type LoadModelOptions, type LoadOptions } from "../options.ts";
import type { Asker } from "./asker.ts";
import { builtLingerMs, mapExisting } from "./make-region.ts";
import { toAccess } from "./mapper.ts";
import { Operation } from "./operation.ts";
import { toOwner } from "./owner.ts";
import type { Region } from "./region.ts";

/** Begins to load a file into a region, which lingers if no owner is said. */
export async function startLoad(
  { api }: Asker,
  path: string,
  options: LoadOptions,
): Promise<Operation<RegionDescriptor>> {
  const { model = defaultModel, name, version, raw, mode, private: isPrivate, device, signal } = options;
  const { storage, hugePages, evictable, onFull, deadlineMs, labels, ifExists } = options;
  if (device !== undefined && (storage !== undefined || isPrivate === true || hugePages !== undefined)) {
    throw new TensordError(
      "validation-failed",
      `Cannot load a file to ${device}: storage, private and hugePages are of host memory`,
      { hint: "leave them out" },
    );
  }
  const owner = toOwner(options);
  const isOwned = Object.values(owner).some((value) => value !== undefined);
  const body = {
    uri: /^(file|s3):\/\//.test(path) ? path : pathToFileURL(resolve(path)).href,
    name,
    version,
    format: raw === true ? "raw" : undefined,
    // A server from before there was another takes it as it is.
    mode: mode === "copy" ? undefined : mode,
    storage: device === undefined ? storage : "cuda_vmm",
    deviceUuid: device,
    private: isPrivate,
    hugePages,
    ifExists,
    evictable,
    onFull,
    deadlineMs,
    labels,
    key: randomUUID(),
    ...(isOwned ? owner : { lingerMs: builtLingerMs }),
  };
  return new Operation(api, await api.loadModel(model, body as NewLoad, signal));
}

/** Loads a file, waits for its end, and maps the region; a wait that ends otherwise cancels the load. */
export async function loadAndMap(asker: Asker, path: string, options: LoadModelOptions): Promise<Region> {
  const { timeoutMs, onProgress, strict, ...target } = options;
  const { signal } = options;
  const operation = await startLoad(asker, path, target);
  const access = toAccess({ ...(strict !== undefined && { strict }) });
  try {
    const waiting = {
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(onProgress !== undefined && { onProgress }),
      ...(signal !== undefined && { signal }),
    };
    return await mapExisting(asker, await operation.wait(waiting), () => access);
  } catch (error) {
    if (operation.descriptor.endedAt === null) await operation.cancel().catch(() => undefined);
    throw error;
  }
}
