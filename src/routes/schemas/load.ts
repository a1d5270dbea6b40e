/** The zod schema of the body that begins to load a model file. */

import { z } from "@hono/zod-openapi";
import { fileLimits } from "../../loaders/limits.ts";
import { CopyRegion } from "./operation.ts";
import { exactly, ownedNamedRegion } from "./requests.ts";

const { model: _model, claim: _claim, if_exists: _ifExists, ...target } = CopyRegion.shape;

export const LoadModel = z
  .strictObject({
    uri: z
      .string()
      .min(1)
      .max(fileLimits.uriCharacters)
      .openapi({
        description:
          "Where the file is, as the server sees it: `file:///path`, below one of the folders that whoever runs it has named " +
          "(`TENSORD_MODEL_ROOTS`), or `s3://bucket/key`, below one of the prefixes: the key as it is in the bucket. Of a model in several files their index, `*.safetensors.index.json`: all of them become one region.",
      }),
    format: z
      .enum(["auto", "raw"])
      .optional()
      .openapi({
        description:
          "Default `auto`: what the file is, its bytes say (safetensors, GGUF, .npy, .npz, each also compressed by gzip or zstd), and " +
          "its tensors are the region's. `raw`: it is bytes, whatever is in them, of one U8 tensor named `data`.",
      }),
    mode: z
      .enum(["auto", "map", "copy"])
      .optional()
      .openapi({
        description:
          "Default `copy`: the file's bytes are copied, as they are once they are decompressed, into a region. `map`: the region is the file " +
          "itself (`file` storage). Nothing is copied or charged, and all who map it share the kernel's copy of it; who may write to the file " +
          "changes the region, which is told of and not kept from anybody. `auto` maps what is one file, not compressed, on a file system " +
          "that is known as local, and that no worker may write to, unless it is said what the region is made of; the operation says `mode` and `reason`.",
      }),
    ...target,
    if_exists: z
      .enum(["attach", "fail"])
      .optional()
      .openapi({
        description:
          "What a region means that has this name and version. Default `attach`: it is the result, if its tensors agree. So is, of a file " +
          "that is copied and whose version is not said, the region that the name alone means, if it was loaded as well, has the same bytes, " +
          "and is as it is asked for; the operation's `reason` says so.",
      }),
  })
  .openapi("LoadModel", {
    description:
      "What to load, and what the region is to be, as in CreateRegion. `name`: the file's, without its suffix, unless it is said. " +
      "`version`: unless it is said, one that stands for this state of the file, so that it is loaded once, and a file whose " +
      "bytes have changed becomes another version beside. Exactly one owner.",
    example: { uri: "file:///models/llama-7b/model.safetensors", name: "weights", linger_ms: 600_000 },
    ...exactly(ownedNamedRegion),
  });
