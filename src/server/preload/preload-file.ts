/**
 * The file of models that are loaded before the server is ready: a list, in YAML or JSON, of what `POST /v1/models/{model}/load` takes, each
 * with its model. What stands in it is checked before anything starts.
 */

import { readFileSync } from "node:fs";
import { z } from "@hono/zod-openapi";
import { toModelPath } from "../../loaders/source/model-roots.ts";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { ModelName } from "../../routes/schemas/common.ts";
import { LoadModel } from "../../routes/schemas/load.ts";

const { key: _key, session: _session, ...load } = LoadModel.shape;

const Preload = z.strictObject({ model: ModelName.optional(), ...load });
export type Preload = z.infer<typeof Preload>;

const shownMistakes = 5;
const hint = "docs/models.md says what may stand in it.";

/**
 * Reads it. @param roots the folders that files may be loaded from.
 * @throws TensordError `io-error` if it cannot be read, `validation-failed` with what is wrong in it.
 */
export function readPreload(path: string, roots: readonly string[]): readonly Preload[] {
  const result = z.array(Preload).min(1).max(limits.operationsKept).safeParse(parse(path));
  if (!result.success) {
    const { issues } = result.error;
    const mistakes = issues.slice(0, shownMistakes).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new TensordError("validation-failed", `Cannot use the models of ${path}: ${mistakes.join("; ")}`, { hint });
  }
  for (const { uri } of result.data) toModelPath(uri, roots);
  return result.data;
}

function parse(path: string): unknown {
  try {
    return Bun.YAML.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TensordError("io-error", `Cannot read the models of ${path}: ${reason}`, { cause: error, hint });
  }
}
