/** The zod schemas of operations: the body that begins a copy, and what is answered about long work. */

import { z } from "@hono/zod-openapi";
import { loadModes } from "../../loaders/mode.ts";
import { isPlainText } from "../../memory/naming.ts";
import { operationKinds, operationStates } from "../../memory/state/operation.ts";
import { byteCount, createdBy, idPattern, nextCursor, time, wantPlainText } from "./common.ts";
import { Problem } from "./problem.ts";
import { CreateRegion, exactly, ownedRegion } from "./requests.ts";
import { openWord, openWordOrNull } from "./words.ts";

const { tensors: _tensors, byte_size: _byteSize, ...target } = CreateRegion.shape;

export const OperationIdParameter = z.string().max(64).openapi(idPattern("op_"));

export const CopyRegion = z
  .strictObject({
    ...target,
    key: z.string().min(1).max(128).refine(isPlainText, wantPlainText).optional().openapi({
      description:
        "What you call this request. Asking again with the same key gets the same operation, should an answer be lost.",
    }),
  })
  .openapi("CopyRegion", {
    description:
      "What the copy is to be, as in CreateRegion: its tensors are the source's, and with `if_exists: attach` a region that has them " +
      "is taken instead. Exactly one owner, which is not the source's.",
    example: { name: "weights-copy", storage: "memfd", linger_ms: 60_000 },
    ...exactly(ownedRegion),
  });

export const Operation = z
  .object({
    id: z.string().openapi(idPattern("op_")),
    kind: openWord("What it does.", operationKinds),
    state: openWord("What became of it. While it is `running` it has no `ended_at`.", operationStates),
    model: z.string().openapi({ description: "The model that its result is in." }),
    created_by: createdBy,
    key: z.string().nullable().openapi({ description: "What its client calls it." }),
    source: z.string().openapi({
      description:
        "What it reads or changes: of a copy the id of a region, of a load the path of a model file, of pages that are unmapped the id of " +
        "their elastic pool.",
      example: `reg_${"a".repeat(26)}`,
    }),
    done_bytes: byteCount.openapi({ description: "How much of `total_bytes` is done. It never goes down." }),
    total_bytes: byteCount.openapi({
      description:
        "All that it reads and writes: a copy is written once, and read back; what is loaded is written, and before that what was compared with a " +
        "region until a byte differed is read. 0 of a load that has not opened " +
        "its file yet, and of one that maps it. Of pages that are unmapped, their bytes.",
    }),
    mode: openWordOrNull(
      "Of a load, how its file becomes a region: the file itself is mapped, or its bytes are copied. null until that is known.",
      loadModes,
    ),
    reason: z.string().nullable().openapi({
      description:
        "Why in that mode, in words that end a sentence, and that nothing was copied where a region has the same bytes; null where there is none.",
      example: "it is compressed (gzip)",
    }),
    region: z.string().nullable().openapi({
      description: "The id of the region that it led to; null unless it `succeeded`, and of what leads to none.",
    }),
    problem: z.union([Problem, z.null()]).openapi({
      description: "What it failed with, or that it was cancelled; null while it runs and after it succeeded.",
    }),
    started_at: time,
    ended_at: time.nullable().openapi({ description: "null while it runs." }),
  })
  .openapi("Operation", {
    description:
      "Long work that goes on whatever becomes of who asked for it. What has ended is told of for ten minutes, and is forgotten " +
      "with the server.",
  });

export const OperationList = z.object({ items: z.array(Operation), next_cursor: nextCursor }).openapi("OperationList");
