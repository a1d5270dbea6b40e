/** The zod schema of a failure's answer. Which facts a failure has is said where it is thrown. */

import { z } from "@hono/zod-openapi";
import { byteCount, Shape } from "./common.ts";
import { DtypeWord, ProblemCode } from "./words.ts";

const Issue = z
  .object({
    path: z.string().openapi({ description: "Where, member by member; empty: the whole.", example: "tensors.0.shape" }),
    message: z.string().openapi({ example: "want at most 64 dimensions" }),
  })
  .openapi("Issue", { description: "What the schema has against a request." });

const SessionUse = z
  .object({ session: z.string().openapi({ description: "Its id, and who it is." }), used_bytes: byteCount })
  .openapi("SessionUse");

const TensorType = z.object({ dtype: DtypeWord, shape: Shape }).openapi("TensorType");

const TensorDifference = z
  .object({
    missing: z.array(z.string()).openapi({ description: "Asked for, and not there." }),
    unexpected: z.array(z.string()).openapi({ description: "There, and not asked for." }),
    different: z.array(
      z.object({ name: z.string(), asked: TensorType, existing: TensorType }).openapi("DifferentTensor"),
    ),
  })
  .openapi("TensorDifference", { description: "Of each list only its beginning is told." });

const PoolNumbers = z
  .object({
    virtual_capacity: byteCount,
    page_size: byteCount,
    minimum_bytes: byteCount,
    maximum_bytes: byteCount.nullable(),
  })
  .openapi("PoolNumbers", {
    description: "With `vmm-pool-exists`: what the pool was made with, and what was asked for.",
  });

/** What failures of elastic pools tell. */
const poolFacts = {
  pool: z.string().optional().openapi({ description: "The elastic pool that was asked." }),
  model: z.string().optional().openapi({ description: "Whose pool there is none of." }),
  device_uuid: z.string().optional().openapi({ description: "The device on which there is none." }),
  byte_offset: byteCount.optional().openapi({ description: "Where pages are in the way, or missing." }),
  byte_size: byteCount.optional().openapi({ description: "How many bytes are in the way there." }),
  largest_free_bytes: byteCount.optional().openapi({ description: "The largest hole." }),
  virtual_capacity: byteCount.optional(),
  page_size: byteCount.optional(),
  granularity: byteCount.optional().openapi({ description: "The smallest page of the device." }),
  maximum_page_size: byteCount.optional(),
  maximum_pages: z.int().optional(),
  minimum_bytes: byteCount.optional(),
  maximum_bytes: byteCount.nullable().optional(),
  existing: PoolNumbers.optional(),
  requested: PoolNumbers.optional(),
  workers: z.array(z.string()).optional().openapi({ description: "The workers in the way." }),
};

/** What several failures tell, or one. Whoever throws with another member names it here. */
const facts = {
  issues: z.array(Issue).optional().openapi({ description: "With `validation-failed`: its first mistakes." }),
  requested_bytes: z.int().optional(),
  available_bytes: z.int().optional(),
  holders: z.array(SessionUse).optional().openapi({ description: "The sessions that use most of what ran out." }),
  draining_bytes: byteCount.optional().openapi({ description: "Deleted, and still mapped." }),
  without_session_bytes: byteCount.optional().openapi({ description: "What no session's end would free." }),
  region: z.string().optional().openapi({ description: "The region in the way." }),
  state: z.string().optional().openapi({ description: "The state of the region that was asked for." }),
  session: z.string().optional().openapi({ description: "The session in the way, and who it is." }),
  regions: z.int().optional().openapi({ description: "How many regions are in the way." }),
  retry_after_seconds: z.int().min(1).optional().openapi({ description: "When to ask again, if it is only too soon." }),
  difference: TensorDifference.optional(),
  complete_length: byteCount.optional().openapi({ description: "The bytes of what a range was asked of." }),
  accept_encoding: z.string().optional().openapi({ description: "What Content-Encoding is taken instead." }),
  ...poolFacts,
};

export const Problem = z
  .looseObject({
    type: z
      .string()
      .openapi({ description: "A URI that stands for the code.", example: "urn:tensord:problem:name-taken" }),
    title: z.string().openapi({ example: "The name belongs to another region" }),
    status: z.int().min(100).max(599).openapi({ example: 409 }),
    detail: z.string().openapi({ example: "Cannot create the name: reg_… (llama/weights) holds it (sealed)" }),
    code: ProblemCode,
    hint: z.string().optional().openapi({ description: "What to do about it." }),
    errno: z.string().optional().openapi({ description: "What the operating system said, where it was asked." }),
    request_id: z.string().optional(),
    ...facts,
  })
  .openapi("Problem", { description: "RFC 9457 Problem Details. A later server may have further members." });

export type ProblemBody = z.infer<typeof Problem>;
