/** The zod schemas of groups: regions of a model that are sealed, and opened, in one turn. */

import { z } from "@hono/zod-openapi";
import { limits } from "../../memory/limits.ts";
import { ModelName, RegionIdParameter, RegionName, Version } from "./common.ts";
import { Region, RegionFacts } from "./region.ts";

const names = z.array(RegionName).min(1).max(limits.groupMembers);

export const GroupMember = z
  .strictObject({
    region: RegionIdParameter,
    revision: z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional().openapi({
      description: "Only this revision of it, as `If-Match` has it for one region; else `revision-mismatch`.",
      example: 3,
    }),
  })
  .openapi("GroupMember");

export const SealGroup = z
  .strictObject({
    regions: z
      .array(GroupMember)
      .min(1)
      .max(limits.groupMembers)
      .openapi({ description: "Of one model, each once, and each with a name of its own, or none." }),
    checksum: z.boolean().optional().openapi({ description: "Take a checksum of the data of each. Default false." }),
    stock_writable: z.boolean().optional().openapi({ description: "As for one region. Default false." }),
  })
  .openapi("SealGroup", {
    example: {
      regions: [
        { region: "reg_abcdefghijklmnopqrstuvwxyz" },
        { region: "reg_234567abcdefghijklmnopqrst", revision: 3 },
      ],
    },
  });

export const SealedGroup = z
  .object({ items: z.array(RegionFacts).openapi({ description: "In the order in which they were asked for." }) })
  .openapi("SealedGroup", { description: "What was sealed in one turn." });

export const OpenGroup = z
  .strictObject({
    model: ModelName.optional().openapi({ description: "Default: `default`." }),
    names: names.openapi({ description: "Each once.", example: ["shard-0", "shard-1"] }),
    version: Version.optional().openapi({
      description: "This version of each. Without one the newest that is sealed, or, where none is, the newest.",
    }),
  })
  .openapi("OpenGroup", { example: { model: "llama-7b", names: ["shard-0", "shard-1"] } });

export const OpenedGroup = z
  .object({ items: z.array(Region).openapi({ description: "In the order in which they were asked for." }) })
  .openapi("OpenedGroup", { description: "The descriptors of one turn: enough to map all of it." });
