/** What a command's argument means by a region: its id, its name in the model default, or model/name. */

import { TensordError } from "../../memory/error.ts";
import { parseRegionId } from "../../memory/naming.ts";
import type { Region } from "./answers.ts";
import type { Api } from "./api.ts";

/** @param action what the command does, as in "delete". @throws TensordError `validation-failed`; what the server says. */
export async function toId(api: Api, target: string, action: string): Promise<string> {
  if (parseRegionId(target) !== undefined) return target;
  const parts = target.split("/");
  const [model, name] = parts.length === 1 ? ["default", parts[0]] : parts;
  if (parts.length > 2 || model === undefined || name === undefined) {
    throw new TensordError(
      "validation-failed",
      `Cannot ${action} ${JSON.stringify(target)}: want a region's id, name or model/name`,
    );
  }
  const path = `/v1/models/${encodeURIComponent(model)}/regions/${encodeURIComponent(name)}`;
  return (await api.call<Region>("GET", path)).id;
}
