/** The zod schemas of what the server says of itself and its host: capabilities, the diagnosis. */

import { z } from "@hono/zod-openapi";
import { features, hugePageModes } from "../../memory/host/capabilities.ts";
import { byteCount } from "./common.ts";
import { DeviceCapability } from "./device.ts";
import { DtypeWord, openWord, StorageEndOrNull, StorageKind } from "./words.ts";

const Platform = z
  .object({
    os: z.string().openapi({ example: "linux" }),
    arch: z.string().openapi({ example: "x64" }),
    kernel: z.string().openapi({ example: "6.18.0" }),
  })
  .openapi("Platform");

const ShmCapability = z
  .object({
    path: z.string().openapi({ description: "Where regions are; clients must see the same.", example: "/dev/shm" }),
    filesystem: z.string().openapi({ example: "tmpfs" }),
    total_bytes: byteCount.nullable().openapi({ description: "null: it has no size of its own." }),
    huge_pages: openWord("When the file system takes huge pages.", hugePageModes),
    page_size: z.int().openapi({ description: "What sizes are rounded up to.", example: 4096 }),
  })
  .openapi("ShmCapability");

const ReserveCapability = z
  .object({
    bytes: byteCount.openapi({
      description: "What may lie ready for regions to come; 0: nothing does.",
      example: 1_073_741_824,
    }),
    huge_pages: z.boolean().openapi({
      description: "Whether large regions are made of huge pages: clients gain by mapping at a multiple of 2 MiB.",
    }),
    reason: z.string().nullable().openapi({ description: "Why not." }),
  })
  .openapi("ReserveCapability");

const BrokerCapability = z
  .object({
    path: z.string().openapi({
      description: "Its Unix socket (SOCK_SEQPACKET), as the server reaches it.",
      example: "/dev/shm/tensord.default/broker.sock",
    }),
    v: z.int().openapi({ description: "The newest version of its protocol that is spoken.", example: 1 }),
  })
  .openapi("BrokerCapability", {
    description: "What hands out descriptors to those who cannot reach a region's name.",
  });
const HugePageCapability = z
  .object({
    page_size: z.int().openapi({ description: "In bytes; a creation asks for it by its name.", example: 2_097_152 }),
    total_bytes: byteCount.openapi({
      description: "Reserved for such pages, by the host's administrator.",
      example: 0,
    }),
    free_bytes: byteCount.openapi({ example: 0 }),
  })
  .openapi("HugePageCapability");

const StorageCapability = z
  .object({
    kind: StorageKind,
    available: z.boolean(),
    survives_restart: z.boolean().openapi({
      description: "Whether its regions are there again after the server's process ended, in order or not.",
    }),
    ends_with: StorageEndOrNull,
    reason: z.string().nullable().openapi({ description: "Why it is not available." }),
  })
  .openapi("StorageCapability");

const Limits = z
  .object({
    request_body_bytes: byteCount,
    region_bytes: byteCount,
    region_tensors: z.int(),
    regions: z.int(),
    models: z.int(),
    name_characters: z.int().openapi({ description: "Names of models and regions." }),
    tensor_name_bytes: z.int(),
    tensor_dimensions: z.int(),
    labels: z.int(),
    label_key_characters: z.int(),
    label_value_characters: z.int(),
    ttl_ms: z.int(),
    list_items: z.int(),
    wait_seconds: z.int().openapi({ description: "Longest `Prefer: wait`." }),
  })
  .openapi("Limits", { description: "The most of each that a request may ask for." });

export const Capabilities = z
  .object({
    api: z.enum(["v1"]).openapi({ description: "Closed: it stands in every path." }),
    version: z.string().openapi({ description: "The server's.", example: "0.2.0" }),
    instance: z.string().openapi({ example: "default" }),
    features: z.array(z.string()).openapi({
      description: "What this server offers: clients send only what is here.",
      example: [...features],
    }),
    platform: Platform,
    shm: ShmCapability,
    reserve: ReserveCapability,
    broker: z.union([BrokerCapability, z.null()]).openapi({ description: "null: this server has none." }),
    huge_pages: z.array(HugePageCapability).openapi({
      description: "Sizes of huge pages that this host has, and how much of each is reserved: for `memfd` storage.",
    }),
    storages: z.array(StorageCapability),
    devices: z.array(DeviceCapability).openapi({ description: "By kind of device; /v1/devices has each of them." }),
    dtypes: z.array(DtypeWord),
    limits: Limits,
  })
  .openapi("Capabilities");

const Finding = z
  .object({
    check: z
      .string()
      .openapi({ description: "What was looked at; a later server looks at more.", example: "shm-size" }),
    status: openWord("How bad it is; `ok` of the diagnosis says whether anything is an error.", [
      "ok",
      "warning",
      "error",
    ]),
    summary: z.string().openapi({ example: "/dev/shm has 64 MiB in all: a container's default." }),
    cure: z.string().nullable().openapi({ description: "What to do about it.", example: "Mount it larger." }),
  })
  .openapi("Finding");

export const Diagnosis = z
  .object({
    ok: z.boolean().openapi({ description: "Whether no finding is an error." }),
    findings: z.array(Finding),
  })
  .openapi("Diagnosis");
