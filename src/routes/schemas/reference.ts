/** The tensor reference. It goes from client to client and never to the server, which only documents it. */

import { z } from "@hono/zod-openapi";
import { byteCount, RegionIdParameter, Shape } from "./common.ts";
import { DtypeWord, StorageKind } from "./words.ts";

export const TensorReference = z
  .object({
    v: z.int().openapi({
      description: "The version of this form: 1. A higher one is read if all of these fields are there.",
      example: 1,
    }),
    storage: StorageKind,
    instance: z.string().openapi({ example: "default" }),
    region: RegionIdParameter,
    path: z.string().nullable().openapi({
      description: "The file that holds it; null of storage that has no name.",
      example: "/dev/shm/tensord.default.abcdefghijklmnopqrstuvwxyz",
    }),
    device_uuid: z.string().nullable().openapi({ description: "The device that holds it; null of host memory." }),
    dev: z.string().openapi({ description: "64 bits, in decimal, as is ino.", example: "27" }),
    ino: z.string().openapi({ example: "4711" }),
    byte_offset: byteCount.openapi({ description: "From the start of the file.", example: 4096 }),
    byte_size: byteCount.openapi({ example: 4_194_304 }),
    dtype: DtypeWord,
    shape: Shape,
    generation: byteCount.openapi({ description: "0 outside rings.", example: 0 }),
  })
  .openapi({ description: "Lets another process map one tensor without asking the server: docs/protocol.md." });
