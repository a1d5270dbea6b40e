/** What a request, or a file of models to load at the start, says of a load becomes what the operation takes. */

import type { z } from "@hono/zod-openapi";
import type { LoadTarget, Wanted } from "../loaders/load.ts";
import { refuseTarget } from "../loaders/mode.ts";
import { type ModelPath, toModelPath, toRegionName } from "../loaders/source/model-roots.ts";
import type { Store } from "../memory/state/store.ts";
import { toCopyTarget } from "./region-request.ts";
import type { LoadModel } from "./schemas/load.ts";

/** A load as it is asked for, whoever asks. */
export interface AskedLoad {
  readonly file: ModelPath;
  readonly wanted: Wanted;
  readonly target: Omit<LoadTarget, "createdBy">;
}

/** @throws TensordError `validation-failed`, `forbidden` of a path below no root, and as `toCopyTarget`. */
export function toLoad(
  store: Store,
  roots: readonly string[],
  model: string,
  { uri, format = "auto", mode, key: _key, version, if_exists = "attach", ...asked }: z.infer<typeof LoadModel>,
): AskedLoad {
  const file = toModelPath(uri, roots);
  const { name = toRegionName(file.path) } = asked;
  const target = { ...toCopyTarget(store, { ...asked, model, name, if_exists }), version };
  if (mode === "map" && target.isStorageSaid) throw refuseTarget(file.path);
  return { file, wanted: { format, mode }, target };
}
